//! How is a list kept that has one element as a rule?
//!
//! The first lies in the list itself, so that it takes no memory of the heap; only more than one do.

use std::slice;

/// A list whose first element takes no allocation.
#[derive(Debug)]
pub(super) struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}

impl<T> Few<T> {
    /// Puts `value` at the end.
    pub fn push(&mut self, value: T) {
        match &self.first {
            None => self.first = Some(value),
            Some(_) => self.rest.push(value),
        }
    }

    /// The last element.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.rest.last_mut().or(self.first.as_mut())
    }

    /// All, in order.
    pub fn iter(&self) -> std::iter::Chain<std::option::Iter<'_, T>, slice::Iter<'_, T>> {
        self.first.iter().chain(&self.rest)
    }

    /// Puts all in ascending order of `key`.
    pub fn sort_by_key<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        if self.rest.is_empty() {
            return;
        }
        self.rest.extend(self.first.take());
        self.rest.sort_by_key(key);
        self.first = Some(self.rest.remove(0));
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(from: I) -> Self {
        let mut few = Self::default();
        from.into_iter().for_each(|value| few.push(value));
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_a_vector_whatever_it_holds() {
        for len in 0..6_u32 {
            let mut vector: Vec<_> = (0..len).map(|i| (i * 7 + 3) % 5).collect();
            let mut few: Few<_> = vector.iter().copied().collect();
            assert!(few.iter().eq(&vector));
            assert_eq!(few.last_mut(), vector.last_mut());
            assert!(few.rest.capacity() == 0 || len > 1, "one takes no memory");
            vector.sort_unstable();
            few.sort_by_key(|value| *value);
            assert!(few.into_iter().eq(vector));
        }
    }
}
