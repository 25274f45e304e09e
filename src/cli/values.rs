//! Values as people write them: sizes, durations, times, places in a partition.

use crate::client::Start;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A number of bytes: `1024`, `64KiB`, `1.5MB`, `2G`; units of 1024 end in `iB`, and bare letters mean these.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1_u64,
        "k" | "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(format!("{text:?} is not a size; write 4096, 64KiB or 1GB")),
    };
    let number = number.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let number = number.ok_or_else(|| format!("{text:?} is not a size; write 4096, 64KiB or 1GB"))?;
    Ok((number * factor as f64) as u64)
}

/// As `bytes`, for what must fit into memory.
pub(super) fn small_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(bytes(text)?).map_err(|_| format!("{text:?} is too large; less than 4GiB"))
}

/// A duration: `250ms`, `5s`, `1.5m`, `2h`, `1d`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write 250ms, 5s, 2m or 1h");
    let (number, unit) = split(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number = number.parse::<f64>().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// A place to begin reading at.
pub(super) fn start(text: &str) -> Result<Start, String> {
    let wrong = || {
        format!(
            "{text:?} is no place to begin; write beginning, end, offset:N, time:2026-01-31T12:00:00Z, \
             time:MILLISECONDS or ago:1h"
        )
    };
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    match text.split_once(':') {
        None if matches!(text, "beginning" | "earliest" | "start") => Ok(Start::Beginning),
        None if matches!(text, "end" | "latest") => Ok(Start::End),
        None => text.parse().ok().filter(|offset| *offset >= 0).map(Start::Offset).ok_or_else(wrong),
        Some(("offset", offset)) => {
            offset.parse().ok().filter(|offset| *offset >= 0).map(Start::Offset).ok_or_else(wrong)
        }
        Some(("time", time)) => match time.parse() {
            Ok(millis) => Ok(Start::Time(millis)),
            Err(_) => rfc3339(time).map(Start::Time).ok_or_else(wrong),
        },
        Some(("ago", ago)) => {
            let ago = i64::try_from(duration(ago)?.as_millis()).map_err(|_| wrong())?;
            Ok(Start::Time(now_ms().saturating_sub(ago)))
        }
        Some(_) => Err(wrong()),
    }
}

/// A moment, in milliseconds since 1970: `2026-01-31T12:00:00Z`, such a number, or `ago:1h`.
pub(super) fn time(text: &str) -> Result<i64, String> {
    let place = if text.starts_with("ago:") { text.to_owned() } else { format!("time:{text}") };
    match start(&place) {
        Ok(Start::Time(millis)) => Ok(millis),
        _ => Err(format!("{text:?} is not a time; write 2026-01-31T12:00:00Z, MILLISECONDS since 1970 or ago:1h")),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// `2026-01-31T12:00:00Z`, with or without the time of day, UTC only; in milliseconds since 1970.
fn rfc3339(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, by: char| -> Option<Vec<i64>> {
        text.split(by).map(|part| part.parse().ok().filter(|number| *number >= 0)).collect()
    };
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let [hour, minute, second] = numbers(time, ':')?[..] else { return None };
    let within = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !within || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March (Hinnant, days_from_civil).
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, year_of_era) = (year / 400, year % 400);
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1.5MB"), Ok(1_500_000));
        assert_eq!(bytes("10"), Ok(10));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "x", "5 parsecs", "-1", "1e999"] {
            assert!(bytes(wrong).is_err() && duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reading_begins_where_it_was_said() {
        assert_eq!(start("beginning"), Ok(Start::Beginning));
        assert_eq!(start("latest"), Ok(Start::End));
        assert_eq!(start("17"), Ok(Start::Offset(17)));
        assert_eq!(start("offset:17"), Ok(Start::Offset(17)));
        assert_eq!(start("time:1000"), Ok(Start::Time(1000)));
        // `date -u -d 2024-02-29T23:59:58 +%s`
        assert_eq!(start("time:2024-02-29T23:59:58Z"), Ok(Start::Time(1_709_251_198_000)));
        assert_eq!(start("time:1970-01-02"), Ok(Start::Time(86_400_000)));
        assert_eq!(time("1970-01-02"), Ok(86_400_000));
        assert!(time("ago:1h") < time("ago:1m"));
        assert!(["yesterday", "ago:x", "end", "offset:1", ""].iter().all(|wrong| time(wrong).is_err()));
        for wrong in ["middle", "-1", "offset:-1", "time:yesterday", "time:2024-13-01", "ago:x", "place:1"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }
}
