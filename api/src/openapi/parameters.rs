//! What a parameter may be, said once for all operations that take one of its name.

use utoipa::IntoParams;
use utoipa::openapi::{
    RefOr, Required,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::{KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type},
};

use punchtrail_protocol::capture::INTEGER_LIMIT;

use crate::{
    ask::{
        after::After,
        cursor::CURSOR_CHARS_MAX,
        limits::{PAGE_MAX, SEARCH_CHARS_MAX},
    },
    once::key::KEY_CHARS_MAX,
};

/// 32 bytes in hexadecimal digits, as devices name photos.
const SHA256: &str = "^[0-9a-f]{64}$";

/// What the types of the parameters say too little of.
pub(super) fn complete(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let wanted = match (&parameter.parameter_in, parameter.name.as_str()) {
            (ParameterIn::Query, "limit") => integer(1, f64::from(PAGE_MAX)),
            (ParameterIn::Query, "after") => integer(0, position_max()),
            (ParameterIn::Query, "cursor" | "since") => text(CURSOR_CHARS_MAX).build(),
            (ParameterIn::Query, "q") => text(SEARCH_CHARS_MAX).build(),
            (ParameterIn::Path, "sha256" | "note") => of_pattern(SHA256),
            (ParameterIn::Path, "day") => day(),
            (ParameterIn::Path, _) if is_bare_text(parameter) => text(128).build(),
            _ => continue,
        };
        parameter.schema = Some(RefOr::T(Schema::Object(wanted)));
    }
}

fn is_bare_text(parameter: &Parameter) -> bool {
    let bare = ObjectBuilder::new().schema_type(Type::String).build();
    parameter.schema == Some(RefOr::T(Schema::Object(bare)))
}

/// Positions are exact in JavaScript.
#[allow(clippy::cast_precision_loss, reason = "2^53 is exact")]
fn position_max() -> f64 {
    (INTEGER_LIMIT - 1) as f64
}

fn integer(least: u32, most: f64) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(f64::from(least)))
        .maximum(Some(most))
        .build()
}

fn text(chars_max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(chars_max))
}

fn of_pattern(pattern: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

fn day() -> Object {
    let date = SchemaFormat::KnownFormat(KnownFormat::Date);
    ObjectBuilder::new().schema_type(Type::String).format(Some(date)).build()
}

/// Of what changes something and isn't a device's.
pub(super) fn idempotency_key() -> Parameter {
    // In quotes, with each of its characters escaped, it is longest.
    let key = text(2 * KEY_CHARS_MAX + 2).build();
    header(
        "Idempotency-Key",
        "A name that you give this request, 1 to 255 characters, bare or in double quotes: sent \
         again with it within 24 hours it is answered as before, and not done twice",
        RefOr::T(Schema::Object(key)),
    )
}

impl IntoParams for After {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "Wait until what was written up to this position is shown";
        let position = RefOr::T(Schema::Object(integer(0, position_max())));
        vec![header("Punchtrail-After", about, position)]
    }
}

fn header(name: &str, about: &str, schema: RefOr<Schema>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}
