//! How are times shown?

const NANOS: i64 = 1_000_000_000;

/// A time (nanoseconds since 1970) as `2026-11-20 10:49:34.000000000Z`.
pub fn full(nanos: i64) -> String {
    format!("{}.{:09}Z", to_seconds(nanos), nanos.rem_euclid(NANOS))
}

/// A time (nanoseconds since 1970) as `2026-11-20 10:49:34`, UTC.
pub fn to_seconds(nanos: i64) -> String {
    let seconds = nanos.div_euclid(NANOS);
    let (year, month, day) = date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The civil date of a day counted from 1970-01-01 (Howard Hinnant, `civil_from_days`).
fn date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_from_march + 2) / 5 + 1)
}

/// Nanoseconds for people: `850 ns`, `12.3 us`, `4.56 ms`, `1.23 s`.
pub fn duration(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(full(0), "1970-01-01 00:00:00.000000000Z");
        assert_eq!(full(-1), "1969-12-31 23:59:59.999999999Z");
        assert_eq!(full(1_709_164_800_000_000_123), "2024-02-29 00:00:00.000000123Z");
        assert_eq!(full(i64::MAX), "2262-04-11 23:47:16.854775807Z");
        assert_eq!(full(i64::MIN), "1677-09-21 00:12:43.145224192Z");
    }

    #[test]
    fn durations() {
        assert_eq!(duration(12_345), "12.3 us");
        assert_eq!(duration(2_500_000_000), "2.50 s");
    }
}
