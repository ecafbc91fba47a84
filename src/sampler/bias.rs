//! Logit bias as people write it: `15043+1, 29905-0.5, 2-inf`.

use alloc::vec::Vec;

/// Reads tokens and what is added to their logits, `-inf` to forbid one; with commas or spaces between. `None` if it is none
/// of that.
pub fn read_bias(text: &str) -> Option<Vec<(u32, f32)>> {
    let items = text.split([',', ' ']).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let sign = item.find(['+', '-'])?;
            let bias: f32 = item[sign..].parse().ok()?;
            let fits = !bias.is_nan() && bias < f32::INFINITY;
            Some((item[..sign].parse().ok()?, bias)).filter(|_| fits)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_is_a_token_a_sign_and_a_number() {
        assert_eq!(read_bias("7+1, 8-0.5 9-inf").unwrap(), [(7, 1.0), (8, -0.5), (9, f32::NEG_INFINITY)]);
        assert_eq!(read_bias("").unwrap(), []);
        for wrong in ["7", "7=1", "-1+1", "x+1", "7+inf", "7+nan", "7+1;8+1", "99999999999+1"] {
            assert_eq!(read_bias(wrong), None, "{wrong}");
        }
    }
}
