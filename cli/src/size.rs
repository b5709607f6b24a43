//! How are byte counts read and shown?

/// The suffixes, each 1024 times the one before.
const SUFFIXES: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

/// Bytes from text such as `4096`, `8M`, `1.5G`, `16TiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; sizes look like 4096, 8M, 1.5G or 16T");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = unit_bytes(&text[digits.len()..]).ok_or_else(wrong)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let fraction = fraction_of(fraction, unit).ok_or_else(wrong)?;
    let bytes = whole.checked_mul(u128::from(unit)).and_then(|b| b.checked_add(fraction));
    bytes.and_then(|b| u64::try_from(b).ok()).ok_or_else(|| format!("'{text}' is more than 64 bits hold"))
}

/// Bytes of a unit: nothing or `B`, or a suffix alone or followed by `B` or `iB`.
fn unit_bytes(text: &str) -> Option<u64> {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return Some(1) };
    if first.eq_ignore_ascii_case(&'b') && letters.as_str().is_empty() {
        return Some(1);
    }
    let power = SUFFIXES.iter().position(|s| first.eq_ignore_ascii_case(s))?;
    matches!(letters.as_str(), "" | "B" | "b" | "iB" | "ib").then(|| 1 << (10 * (power + 1)))
}

/// `0.fraction` of `unit` bytes, rounded down; only a unit larger than a byte has fractions.
fn fraction_of(fraction: &str, unit: u64) -> Option<u128> {
    if fraction.is_empty() {
        return Some(0);
    }
    if unit == 1 || fraction.len() > 12 {
        return None;
    }
    let digits: u128 = fraction.parse().ok()?;
    Some(digits * u128::from(unit) / 10_u128.pow(u32::try_from(fraction.len()).ok()?))
}

/// Bytes for people: `0 B`, `4.0 KiB`, `1.5 GiB`.
pub fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut suffixes = SUFFIXES.iter().copied().peekable();
    let mut suffix = suffixes.next().unwrap_or('K');
    while value >= 1023.95 && suffixes.peek().is_some() {
        value /= 1024.0;
        suffix = suffixes.next().unwrap_or(suffix);
    }
    format!("{value:.1} {suffix}iB")
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 file`, `2 files`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("8M", 8 << 20),
            ("8m", 8 << 20),
            ("1G", 1 << 30),
            ("16T", 16 << 40),
            ("16TiB", 16 << 40),
            ("2KB", 2048),
            ("100B", 100),
            ("1.5G", 3 << 29),
            ("4E", 1 << 62),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "M", "8X", "8MM", "-1", "1.5", "8 M", "1..5G", "99999999999999999999", "99E", ".5G"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown() {
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(4096), "4.0 KiB");
        assert_eq!(human((1 << 20) - 1), "1.0 MiB");
        assert_eq!(human(16 << 40), "16.0 TiB");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(1000, "file", "files"), "1,000 files");
    }
}
