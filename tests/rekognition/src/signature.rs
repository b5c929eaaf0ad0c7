//! AWS Signature Version 4, the verifying side, after "Create a signed AWS API request" in the IAM
//! user guide.
//! What Amazon would refuse is refused in its words. The time is not looked at.

use axum::http::{HeaderMap, Method, Uri};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{ACCESS_KEY, REGION, SECRET_KEY};

/// An error's type and message.
pub(crate) type Refusal = (&'static str, String);

/// What stands in an `Authorization` header.
struct Claimed<'a> {
    key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    headers: &'a str,
    signature: &'a str,
}

impl<'a> Claimed<'a> {
    fn read(header: &'a str) -> Option<Self> {
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let part = |name| rest.split(',').find_map(|part| part.trim().strip_prefix(name));
        let scope: Vec<_> = part("Credential=")?.split('/').collect();
        let [key, date, region, service, "aws4_request"] = scope[..] else { return None };
        let (headers, signature) = (part("SignedHeaders=")?, part("Signature=")?);
        Some(Self { key, date, region, service, headers, signature })
    }
}

/// Whether the request is signed with the one key there is, for this region and service.
pub(crate) fn check(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let claimed = header("authorization")
        .and_then(Claimed::read)
        .ok_or(("MissingAuthenticationTokenException", "Missing Authentication Token".into()))?;
    if claimed.key != ACCESS_KEY {
        let why = "The security token included in the request is invalid.";
        return Err(("UnrecognizedClientException", why.into()));
    }
    let invalid = |why: &str| Err(("InvalidSignatureException", why.to_owned()));
    if claimed.region != REGION || claimed.service != "rekognition" {
        return invalid("Credential should be scoped to a valid region and service.");
    }
    let signed: Vec<_> = claimed.headers.split(';').collect();
    if !["host", "x-amz-date", "x-amz-target"].iter().all(|needed| signed.contains(needed)) {
        return invalid("What has to be signed is not.");
    }
    let canonical_headers: String = signed
        .iter()
        .map(|&name| {
            let value = header(name).unwrap_or_default();
            let words: Vec<_> = value.split_whitespace().collect();
            format!("{name}:{}\n", words.join(" "))
        })
        .collect();
    let request = format!(
        "{method}\n{}\n{}\n{canonical_headers}\n{}\n{}",
        uri.path(),
        uri.query().unwrap_or_default(),
        claimed.headers,
        hex::encode(Sha256::digest(body)),
    );
    let time = header("x-amz-date").unwrap_or_default();
    let scope = format!("{}/{}/{}/aws4_request", claimed.date, claimed.region, claimed.service);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        hex::encode(Sha256::digest(request.as_bytes()))
    );
    if !time.starts_with(claimed.date)
        || hex::encode(mac(&key(&claimed), &to_sign)) != claimed.signature
    {
        return invalid(
            "The request signature we calculated does not match the signature you provided.",
        );
    }
    Ok(())
}

fn key(claimed: &Claimed<'_>) -> Vec<u8> {
    let secret = format!("AWS4{SECRET_KEY}").into_bytes();
    [claimed.date, claimed.region, claimed.service, "aws4_request"]
        .iter()
        .fold(secret, |key, part| mac(&key, part))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
