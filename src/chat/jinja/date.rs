//! Date: what `strftime_now` writes on a board that has no clock.

use super::error::What;
use super::print::put;
use alloc::string::String;

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// The year, 1 to 9999.
    pub year: u16,
    /// The month, 1 to 12.
    pub month: u8,
    /// The day of the month, from 1.
    pub day: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// Where nobody says what day it is: the day that Llama 3's templates take themselves in that case.
    pub const DEFAULT: Self = Self { year: 2024, month: 7, day: 26 };

    /// Reads `2026-11-25`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let date = Self { year: year.parse().ok()?, month: month.parse().ok()?, day: day.parse().ok()? };
        let sound = (1..=9999).contains(&date.year)
            && (1..=12).contains(&date.month)
            && (1..=date.days_of_month()).contains(&date.day);
        (sound && parts.next().is_none() && year.len() == 4).then_some(date)
    }

    fn is_leap(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn days_of_month(self) -> u8 {
        match self.month {
            2 => 28 + u8::from(self.is_leap()),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Days of the year before this one.
    fn days_before(self) -> u16 {
        let month = |month| u16::from(Self { month, ..self }.days_of_month());
        (1..self.month).map(month).sum::<u16>() + u16::from(self.day) - 1
    }

    /// 0 is Sunday.
    fn weekday(self) -> usize {
        let years = usize::from(self.year) - 1;
        (years * 365 + years / 4 - years / 100 + years / 400 + usize::from(self.days_before()) + 1) % 7
    }

    /// As C's `strftime` writes it, at midnight.
    pub fn format(self, format: &str) -> Result<String, What> {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut field = chars.next().unwrap_or('%');
            let bare = field == '-';
            if bare {
                field = chars.next().unwrap_or('%');
            }
            let number = |out: &mut String, value: u16, width: usize| {
                put(out, format_args!("{value:0width$}", width = if bare { 0 } else { width }))
            };
            let (month, day) = (MONTHS[usize::from(self.month) - 1], DAYS[self.weekday()]);
            match field {
                'Y' => number(&mut out, self.year, 4),
                'y' => number(&mut out, self.year % 100, 2),
                'm' => number(&mut out, self.month.into(), 2),
                'd' => number(&mut out, self.day.into(), 2),
                'e' => put(&mut out, format_args!("{:2}", self.day)),
                'j' => number(&mut out, self.days_before() + 1, 3),
                'H' | 'M' | 'S' => number(&mut out, 0, 2),
                'I' => number(&mut out, 12, 2),
                'p' => out.push_str("AM"),
                'B' => out.push_str(month),
                'b' | 'h' => out.push_str(&month[..3]),
                'A' => out.push_str(day),
                'a' => out.push_str(&day[..3]),
                'F' => put(&mut out, format_args!("{:04}-{:02}-{:02}", self.year, self.month, self.day)),
                'T' => out.push_str("00:00:00"),
                '%' => out.push('%'),
                field => return Err(What::Unsupported { kind: "field of a date", name: field.into() }),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_checked_and_written() {
        let date = Date::parse("2024-02-29").unwrap();
        assert_eq!(
            date.format("%A %a %d %-d %e %B %b %m %Y %y %j %F %H:%M %% x").unwrap(),
            "Thursday Thu 29 29 29 February Feb 02 2024 24 060 2024-02-29 00:00 % x"
        );
        assert_eq!(Date::parse("2026-11-25").unwrap().format("%a").unwrap(), "Wed");
        assert_eq!(Date::parse("2000-01-01").unwrap().format("%a %-m").unwrap(), "Sat 1");
        for bad in [
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "24-01-01",
            "2024-01-01-01",
            "2024-01",
            "x",
            "2100-02-29",
        ] {
            assert_eq!(Date::parse(bad), None, "{bad}");
        }
        assert!(date.format("%Q").is_err());
    }
}
