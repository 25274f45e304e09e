//! ApiVersions (key 18), versions 0 to 4: which APIs and versions this node serves. The only API whose unsupported
//! versions are answered (KIP-511); `request` does that.

use super::{APIS, Api};
use crate::kafka::guard::{Kind, Shape, since};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

/// What is served.
pub static API: Api = Api::new(ApiKey::ApiVersions, (0, 4), Shape::of(&[since(3, Kind::Text), since(3, Kind::Text)]));

/// Lists the APIs served.
#[must_use]
pub fn answer(request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let named = is_software_word(&request.client_software_name) && is_software_word(&request.client_software_version);
    if version >= 3 && !named {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    let shown = APIS.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.shown_from)
            .with_max_version(api.serves.1)
    });
    ApiVersionsResponse::default().with_api_keys(shown.collect())
}

/// Whether a client's name or version is one that metrics and logs can carry (KIP-511): letters, digits, dots and
/// dashes, beginning and ending with a letter or digit.
fn is_software_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    outer(bytes.first())
        && outer(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;

    fn code(name: &'static str, software_version: &'static str, version: i16) -> i16 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(name))
            .with_client_software_version(StrBytes::from_static_str(software_version));
        answer(&request, version).error_code
    }

    #[test]
    fn client_software_is_named_in_words() {
        assert_eq!(code("apache-kafka-java", "4.1.1", 3), 0);
        for bad in ["", "-x", "x.", "two words", "naïve", "a_b"] {
            assert_eq!(code(bad, "1", 3), 42, "{bad}");
            assert_eq!(code("x", bad, 4), 42, "{bad}");
        }
        assert_eq!(code("", "", 2), 0, "older versions carry no name");
    }
}
