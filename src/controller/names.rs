//! Kafka's rules for topic names (its class `Topic`): they end up in file names and in the names of metrics.

/// The longest name, in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Why a name can't be a topic's; `None` when it can.
#[must_use]
pub fn flaw_of_topic_name(name: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        Some("a topic's name can't be empty".to_owned())
    } else if name == "." || name == ".." {
        Some("a topic's name can't be \".\" or \"..\"".to_owned())
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        Some(format!("a topic's name can't be longer than {TOPIC_NAME_BYTES_MAX} characters"))
    } else if !name.bytes().all(legal) {
        Some("a topic's name consists of ASCII letters, digits, '.', '_' and '-'".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for name in ["a", "A-1_b.c", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(flaw_of_topic_name(name), None, "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\0", "a:b", &"x".repeat(250)] {
            assert!(flaw_of_topic_name(name).is_some(), "{name}");
        }
    }
}
