//! Names the known key that an unknown one was most likely meant to be.

use super::ConfigError;

/// An error of the TOML reader as ours. serde's text for an unknown key ends in the known ones, each in backticks.
pub(super) fn explain(message: &str) -> ConfigError {
    let Some((_, tail)) = message.split_once("unknown field `") else {
        return ConfigError::Unreadable(message.to_owned());
    };
    let mut quoted = tail.split('`').step_by(2); // the unknown key, then every known one
    let unknown = quoted.next().unwrap_or_default();
    let known = tail.split('`').skip(2).step_by(2);
    let nearest = known
        .map(|name| (distance(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .map(|(_, name)| name.to_owned());
    ConfigError::UnknownKey { message: message.to_owned(), nearest }
}

/// How many characters have to be put in, taken out or exchanged to make one text of the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (number, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = number + 1;
        for (column, to) in right.iter().enumerate() {
            let exchanged = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_edits() {
        for (left, right, expected) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("data-dir", "data_dir", 1)]
        {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }
}
