//! Signing in by a provider of OpenID Connect: it vouches for who somebody is, and nothing else.
//! Roles and sites stay ours, and nobody is made by signing in.
//!
//! The code flow with PKCE, state and nonce ([`begun`]); discovery and every call bounded
//! (`calls`); what the ID token says is taken only after its signature, issuer, audience, time
//! and nonce were found right (here, by the openidconnect crate); whose it is is settled last
//! ([`entering`]).
//!
//! What the provider's pages say of itself is remembered for an hour by each node, and asked for
//! anew when a token names a key that isn't known. A provider that is away keeps nobody out who has
//! a password, and doesn't keep the server from starting.

pub mod begun;
mod calls;
pub mod entering;

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};

use openidconnect::{
    AdditionalProviderMetadata, AuthType, AuthenticationContextClass, AuthenticationFlow,
    AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, IssuerUrl,
    Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata,
    RedirectUrl, RequestTokenError, Scope, SignatureVerificationError, TokenResponse as _,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
        CoreErrorResponseType, CoreGrantType, CoreIdTokenClaims, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm,
        CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType, CoreTokenResponse,
        CoreUserInfoClaims,
    },
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};
use url::Url;

use self::{
    begun::Begun,
    calls::{CallError, Calls},
};

/// Where a provider sends browsers back to, below this server's own address.
pub const CALLBACK_PATH: &str = "/v1/sign-in/provider/callback";
/// How long what a provider's pages say is remembered.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);
/// Between two looks at them because a token named a key that isn't known.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(60);
/// How long nobody asks again after they couldn't be read.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// How long everything takes that a sign-in asks of the provider.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Sign-ins that ask the provider at once, on one node.
const ASKING_MAX: usize = 16;
/// The longest code of a provider's that is sent back to it, in bytes.
const CODE_BYTES_MAX: usize = 4_096;
/// The longest name of somebody at the provider, in bytes (OpenID Connect Core, 2: 255).
const SUBJECT_BYTES_MAX: usize = 255;
/// By which a provider says that more than one factor was shown (RFC 8176).
const MULTI_FACTOR: &str = "mfa";
/// Signatures that are taken: by the provider's own key. One made with the client's secret proves
/// nothing that whoever knows that secret couldn't say.
const SIGNATURES: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Which provider, and as what this server is known to it.
#[derive(Clone)]
pub struct Settings {
    /// Its address, letter for letter as it says it of itself.
    pub issuer: String,
    pub client_id: String,
    /// None for a client that the provider knows by PKCE alone.
    pub client_secret: Option<String>,
    /// What stands on the button.
    pub name: String,
    /// Where browsers reach this server, without a path.
    pub public_url: String,
    /// Values of `acr` by which it says that more than one factor was shown.
    pub multi_factor_acr: Vec<String>,
    /// Lets a provider on this very machine be asked in the clear: to develop.
    pub allows_loopback_http: bool,
}

impl fmt::Debug for Settings {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// Why a provider can't be used as it was set.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The issuer's address.
    #[error(
        "the provider's issuer has to be an https address as it says it of itself, without query \
         and fragment (http only on this machine, with --openid-insecure-loopback)"
    )]
    Issuer,
    /// This server's own.
    #[error(
        "--public-url has to be where browsers reach this server, https://clock.example.org for \
         one, without a path (http only on this machine, with --openid-insecure-loopback)"
    )]
    PublicUrl,
    /// No client id.
    #[error("the provider knows this server by a client id; give --openid-client-id")]
    Client,
    /// No TLS.
    #[error("the provider can't be asked by TLS: {0}")]
    Tls(String),
}

/// Why a provider's word wasn't had, or isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It is away, too slow, answers what isn't to be understood, or has to be set right by an
    /// operator.
    #[error("the provider can't be asked now: {0}")]
    Unavailable(String),
    /// What it or the browser says isn't to be believed.
    #[error("what came from the provider isn't taken: {0}")]
    Refused(String),
}

/// Who somebody is, by the provider's word.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub issuer: String,
    /// What it calls them for ever.
    pub subject: String,
    /// Their address, where it says that it has seen that it is theirs.
    pub verified_email: Option<String>,
    /// Whether it says that they showed more than one factor.
    pub is_multi_factor: bool,
}

impl fmt::Debug for Identity {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// What came back with a browser.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    pub code: &'a str,
    /// Who says that it sent the browser (RFC 9207).
    pub issuer: Option<&'a str>,
}

/// What a provider says of itself beyond what the crate reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct More {
    /// Whether it says who it is when it sends a browser back (RFC 9207).
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What is known of the provider.
#[derive(Default)]
struct Known {
    metadata: Option<(Metadata, Instant)>,
    failed_at: Option<Instant>,
    looked_again_at: Option<Instant>,
}

/// A provider of sign-ins.
pub struct Provider {
    settings: Settings,
    issuer: IssuerUrl,
    redirect: RedirectUrl,
    calls: Calls,
    known: Mutex<Known>,
    asking: Semaphore,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.settings).finish()
    }
}

impl Provider {
    /// A provider as it was set. It isn't asked yet.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let allows = settings.allows_loopback_http;
        let issuer = Url::parse(&settings.issuer).map_err(|_| SettingsError::Issuer)?;
        let public = Url::parse(&settings.public_url).map_err(|_| SettingsError::PublicUrl)?;
        if !calls::may_be_asked(&issuer, allows) || issuer.query().is_some() {
            return Err(SettingsError::Issuer);
        }
        if !calls::may_be_asked(&public, allows) || public.query().is_some() || public.path() != "/"
        {
            return Err(SettingsError::PublicUrl);
        }
        if settings.client_id.is_empty() {
            return Err(SettingsError::Client);
        }
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|_| SettingsError::Issuer)?;
        let redirect = public.join(CALLBACK_PATH).map_err(|_| SettingsError::PublicUrl)?;
        let calls = Calls::new(allows).map_err(SettingsError::Tls)?;
        Ok(Self {
            issuer,
            redirect: RedirectUrl::from_url(redirect),
            settings,
            calls,
            known: Mutex::default(),
            asking: Semaphore::new(ASKING_MAX),
        })
    }

    /// What stands on the button.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its address.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Where the provider sends browsers back to, as it has to be registered there.
    pub fn redirect(&self) -> &str {
        self.redirect.as_str()
    }

    /// Where a browser goes to that begins to sign in.
    ///
    /// # Errors
    /// When the provider's own pages can't be read.
    pub async fn authorization_url(&self, begun: &Begun) -> Result<String, ProviderError> {
        let metadata = self.bounded(self.metadata()).await?;
        let client = self.client(&metadata);
        let (state, nonce) = (begun.state(), begun.nonce());
        let mut request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier(begun)))
            .add_scope(Scope::new("email".to_owned()));
        for acr in &self.settings.multi_factor_acr {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        Ok(request.url().0.into())
    }

    /// Who came back: the code is changed for the provider's word, and that is looked at.
    ///
    /// # Errors
    /// See [`ProviderError`].
    pub async fn identity(
        &self,
        begun: &Begun,
        returned: Returned<'_>,
    ) -> Result<Identity, ProviderError> {
        self.bounded(self.ask(begun, returned)).await
    }

    async fn bounded<T>(
        &self,
        asking: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let slot = self.asking.try_acquire();
        let _slot = slot.map_err(|_| unavailable("too many sign-ins wait for it already"))?;
        let slow = |_| unavailable("it takes too long");
        timeout(ANSWER_MAX, asking).await.map_err(slow)?
    }

    async fn ask(&self, begun: &Begun, returned: Returned<'_>) -> Result<Identity, ProviderError> {
        if returned.code.is_empty() || returned.code.len() > CODE_BYTES_MAX {
            return Err(refused("the code can't be one"));
        }
        let metadata = self.metadata().await?;
        let says = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match returned.issuer {
            Some(issuer) if issuer != self.issuer() => {
                return Err(refused("the browser was sent by another provider"));
            }
            None if says => return Err(refused("it isn't said which provider sent the browser")),
            _ => {}
        }
        let code = AuthorizationCode::new(returned.code.to_owned());
        let answer = self
            .client(&metadata)
            .exchange_code(code)
            .map_err(|_| unavailable("it names no place where a code is changed"))?
            .set_pkce_verifier(verifier(begun))
            .request_async(&self.calls)
            .await
            .map_err(not_changed)?;
        let nonce = Nonce::new(begun.nonce());
        let claims = match self.verified(&metadata, &answer, &nonce) {
            // Its keys may have changed since they were read.
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey,
            )) => {
                let metadata = self.looked_again().await?;
                self.verified(&metadata, &answer, &nonce)
            }
            other => other,
        };
        let claims = claims.map_err(|error| refused(&error.to_string()))?;
        let subject = claims.subject().as_str();
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX || subject.contains('\0') {
            return Err(refused("what it calls them can't be kept"));
        }
        let verified_email = match claims.email() {
            Some(email) => (claims.email_verified() == Some(true)).then(|| email.as_str().into()),
            None => self.told_email(&metadata, &answer, &claims).await,
        };
        Ok(Identity {
            issuer: self.issuer().to_owned(),
            subject: subject.to_owned(),
            verified_email,
            is_multi_factor: self.is_multi_factor(&claims),
        })
    }

    fn is_multi_factor(&self, claims: &CoreIdTokenClaims) -> bool {
        let by_methods = claims
            .auth_method_refs()
            .is_some_and(|methods| methods.iter().any(|method| method.as_str() == MULTI_FACTOR));
        let class = claims.auth_context_ref().map(|class| class.as_str());
        let by_class = class.is_some_and(|class| {
            self.settings.multi_factor_acr.iter().any(|wanted| wanted == class)
        });
        by_methods || by_class
    }

    /// The ID token's claims, once everything about it was found right.
    fn verified(
        &self,
        metadata: &Metadata,
        answer: &CoreTokenResponse,
        nonce: &Nonce,
    ) -> Result<CoreIdTokenClaims, ClaimsVerificationError> {
        let none = || ClaimsVerificationError::Other("it sent no ID token".to_owned());
        let token = answer.id_token().ok_or_else(none)?;
        let said = metadata.id_token_signing_alg_values_supported();
        let said: HashSet<_> = said.iter().collect();
        let client = self.client(metadata);
        let taken = SIGNATURES.into_iter().filter(|algorithm| said.contains(algorithm));
        let verifier = client.id_token_verifier().set_allowed_algs(taken);
        token.claims(&verifier, nonce).cloned()
    }

    /// The address of somebody whose ID token has none, where the provider tells it elsewhere. That
    /// it can't be had is no reason to keep out whoever is tied already.
    async fn told_email(
        &self,
        metadata: &Metadata,
        answer: &CoreTokenResponse,
        claims: &CoreIdTokenClaims,
    ) -> Option<String> {
        let access = answer.access_token();
        // It goes into a header.
        if !access.secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let subject = Some(claims.subject().clone());
        let client = self.client(metadata);
        let asked = client.user_info(access.clone(), subject).ok()?;
        let told: CoreUserInfoClaims = asked.request_async(&self.calls).await.ok()?;
        let email = told.email().filter(|_| told.email_verified() == Some(true))?;
        Some(email.as_str().to_owned())
    }

    fn client(
        &self,
        metadata: &Metadata,
    ) -> CoreClient<
        openidconnect::EndpointSet,
        openidconnect::EndpointNotSet,
        openidconnect::EndpointNotSet,
        openidconnect::EndpointNotSet,
        openidconnect::EndpointMaybeSet,
        openidconnect::EndpointMaybeSet,
    > {
        let secret = self.settings.client_secret.clone().map(ClientSecret::new);
        let id = ClientId::new(self.settings.client_id.clone());
        let client = CoreClient::from_provider_metadata(metadata.clone(), id, secret)
            .set_redirect_uri(self.redirect.clone());
        // In a header unless it says that it takes only the other way.
        let ways = metadata.token_endpoint_auth_methods_supported();
        let takes = |way| ways.is_none_or(|ways| ways.contains(&way));
        match takes(CoreClientAuthMethod::ClientSecretBasic) {
            true => client,
            false => client.set_auth_type(AuthType::RequestBody),
        }
    }

    /// What the provider's pages say, at most an hour old.
    async fn metadata(&self) -> Result<Metadata, ProviderError> {
        let mut known = self.known.lock().await;
        match &known.metadata {
            Some((metadata, read_at)) if read_at.elapsed() < KNOWN_FOR => Ok(metadata.clone()),
            _ => self.read(&mut known).await,
        }
    }

    /// What they say now, unless somebody looked again a moment ago: tokens that name made-up keys
    /// must not make this server ask without end.
    async fn looked_again(&self) -> Result<Metadata, ProviderError> {
        let mut known = self.known.lock().await;
        let lately = known.looked_again_at.is_some_and(|at| at.elapsed() < LOOK_AGAIN_EVERY);
        match &known.metadata {
            Some((metadata, _)) if lately => Ok(metadata.clone()),
            _ => {
                known.looked_again_at = Some(Instant::now());
                self.read(&mut known).await
            }
        }
    }

    async fn read(&self, known: &mut Known) -> Result<Metadata, ProviderError> {
        if known.failed_at.is_some_and(|at| at.elapsed() < FAILED_FOR) {
            return Err(unavailable("it couldn't be read a moment ago"));
        }
        match Metadata::discover_async(self.issuer.clone(), &self.calls).await {
            Ok(metadata) => {
                known.metadata = Some((metadata.clone(), Instant::now()));
                known.failed_at = None;
                Ok(metadata)
            }
            Err(error) => {
                known.failed_at = Some(Instant::now());
                Err(unavailable(&calls::chain(&error)))
            }
        }
    }
}

fn verifier(begun: &Begun) -> PkceCodeVerifier {
    PkceCodeVerifier::new(begun.verifier())
}

fn unavailable(why: &str) -> ProviderError {
    ProviderError::Unavailable(why.to_owned())
}

fn refused(why: &str) -> ProviderError {
    ProviderError::Refused(why.to_owned())
}

/// Why a code wasn't changed. A code that is nobody's is the browser's fault, all else is to be
/// set right elsewhere.
fn not_changed(
    error: RequestTokenError<
        CallError,
        openidconnect::StandardErrorResponse<CoreErrorResponseType>,
    >,
) -> ProviderError {
    match error {
        RequestTokenError::ServerResponse(answer)
            if *answer.error() == CoreErrorResponseType::InvalidGrant =>
        {
            refused("it doesn't know the code")
        }
        RequestTokenError::ServerResponse(answer) => {
            unavailable(&format!("it refuses this server: {}", answer.error()))
        }
        other => unavailable(&calls::chain(&other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(issuer: &str, public_url: &str) -> Settings {
        Settings {
            issuer: issuer.to_owned(),
            client_id: "clock".to_owned(),
            client_secret: Some("never to be shown".to_owned()),
            name: "Example".to_owned(),
            public_url: public_url.to_owned(),
            multi_factor_acr: Vec::new(),
            allows_loopback_http: false,
        }
    }

    #[test]
    fn a_provider_is_asked_by_tls_alone_and_its_secret_never_shown() {
        let (issuer, here) = ("https://id.example/realms/a", "https://clock.example");
        let provider = Provider::new(settings(issuer, here)).unwrap();
        assert_eq!(provider.redirect(), "https://clock.example/v1/sign-in/provider/callback");
        assert!(!format!("{provider:?}").contains("never"));
        for issuer in ["http://id.example", "http://127.0.0.1:9", "id.example", "", "https://"] {
            let made = Provider::new(settings(issuer, here));
            assert!(matches!(made, Err(SettingsError::Issuer)), "{issuer}");
        }
        let made = Provider::new(settings("https://id.example/?tenant=1", here));
        assert!(matches!(made, Err(SettingsError::Issuer)));
        for here in ["http://clock.example", "https://clock.example/app", "clock.example", ""] {
            let made = Provider::new(settings(issuer, here));
            assert!(matches!(made, Err(SettingsError::PublicUrl)), "{here}");
        }
        let nobody = Settings { client_id: String::new(), ..settings(issuer, here) };
        assert!(matches!(Provider::new(nobody), Err(SettingsError::Client)));
        let developing = Settings {
            allows_loopback_http: true,
            ..settings("http://127.0.0.1:9", "http://localhost:8080")
        };
        assert!(Provider::new(developing).is_ok());
    }
}
