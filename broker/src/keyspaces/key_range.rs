//! Keys from one on, up to another.

/// The keys from one on, up to another or to the end.
#[derive(Clone, Debug)]
pub struct KeyRange {
    /// The first key.
    pub from: Vec<u8>,
    /// The first key beyond; `None`: no end.
    pub to: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> Self {
        Self { from: Vec::new(), to: None }
    }

    /// All keys that start with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut to = prefix.to_vec();
        // The first key beyond is the prefix plus one; a prefix of nothing but 0xFF has none.
        while to.last() == Some(&u8::MAX) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Self { from: prefix.to_vec(), to: (!to.is_empty()).then_some(to) }
    }

    /// What is left of the range after `key`.
    pub fn after(mut self, key: &[u8]) -> Self {
        self.from.clear();
        self.from.extend_from_slice(key);
        self.from.push(0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_the_highest_bytes_has_no_end() {
        assert_eq!(KeyRange::prefix(&[255, 255]).to, None);
        assert_eq!(KeyRange::prefix(&[1, 255]).to, Some(vec![2]));
        assert_eq!(KeyRange::prefix(&[]).to, None);
    }
}
