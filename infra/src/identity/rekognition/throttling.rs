//! Each try that Rekognition throttled slows the calls down, also those tries that the SDK repeats
//! by itself and tells nobody about.

use std::{fmt, marker::PhantomData, sync::Arc};

use aws_sdk_rekognition::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::FinalizerInterceptorContextRef,
    },
    error::{BoxError, ProvideErrorMetadata},
};

use super::{super::Quota, error};

/// Watches the tries of one action, whose errors are `E`.
pub(super) struct Throttling<E> {
    quota: Arc<Quota>,
    errors: PhantomData<fn() -> E>,
}

impl<E> Throttling<E> {
    pub(super) fn of(quota: &Arc<Quota>) -> Self {
        Self { quota: quota.clone(), errors: PhantomData }
    }
}

impl<E> fmt::Debug for Throttling<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Throttling").finish_non_exhaustive()
    }
}

impl<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static> Intercept
    for Throttling<E>
{
    fn name(&self) -> &'static str {
        "Throttling"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let failed = context.output_or_error().and_then(Result::err);
        let failed = failed.and_then(|error| error.as_operation_error());
        let code = failed.and_then(|error| error.downcast_ref::<E>()).and_then(E::code);
        let status = context.response().map(|response| response.status().as_u16());
        if failed.is_some() && error::is_throttled(code, status) {
            self.quota.throttled();
        }
        Ok(())
    }
}
