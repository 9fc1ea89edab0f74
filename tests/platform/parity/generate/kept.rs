//! Random calls that keep values or records, and statistics of pairs.

use rand::Rng;

use super::{Generator, column};
use crate::parity::aggregate::{Aggregate, Function};
use crate::parity::event::{AT, B, C, D, K, M, N, T, X, Y};
use crate::parity::ordered::{End, OrderBy};
use crate::parity::pairs::Statistic;
use crate::parity::view::{LABEL, WEIGHT};

impl Generator<'_> {
    /// What keeps values or records, and statistics of pairs.
    pub(super) fn kept(&mut self, is_joined: bool) -> Aggregate {
        use Function as F;
        let any = if is_joined { self.pick(&[K, LABEL, WEIGHT, X]) } else { self.pick(&[K, C, M, N, D, X, B, T, AT]) };
        let number = self.pick(&[C, M, X, Y]);
        let (function, argument) = match self.rng.random_range(0..12) {
            0..3 => (F::Of(self.pick(&Statistic::ALL)), number),
            3 => (F::MedianExact, number),
            4 => (F::ExactPercentile(self.pick(&[0.0, 0.1, 0.5, 0.9, 1.0])), number),
            5 => (F::TopK(self.pick(&[1, 2, 5])), any),
            6 => (F::End(self.pick(&[End::First, End::Last]), self.chance(0.3)), any),
            7 => (F::End(End::Any, true), any),
            8 => (self.pick(&[F::ArgMin, F::ArgMax]), any),
            9 | 10 => (F::ArrayAgg(self.chance(0.3)), any),
            _ => (F::StringAgg(self.pick(&["", ", "])), if is_joined { self.pick(&[K, LABEL]) } else { K }),
        };
        let second = match function {
            F::Of(_) => Some(column(self.pick(&[C, M, X, Y]))),
            F::ArgMin | F::ArgMax => Some(column(self.pick(&[K, C, N, D, X, B, AT]))),
            _ => None,
        };
        let is_list = matches!(function, F::ArrayAgg(_) | F::StringAgg(_));
        let distinct = is_list && self.chance(0.3);
        let order_by = match function {
            F::ArrayAgg(_) | F::StringAgg(_) if distinct => {
                if self.chance(0.5) {
                    vec![self.order_by(argument)]
                } else {
                    vec![]
                }
            }
            F::End(..) | F::ArrayAgg(_) | F::StringAgg(_) => self.order_keys(),
            _ => vec![],
        };
        Aggregate { function, argument: Some(column(argument)), second, distinct, order_by, filter: None }
    }

    fn order_keys(&mut self) -> Vec<OrderBy> {
        let keys: Vec<usize> = (0..self.rng.random_range(0..3)).map(|_| self.pick(&[K, C, N, D, X, B, AT])).collect();
        keys.into_iter().map(|key| self.order_by(key)).collect()
    }

    fn order_by(&mut self, key: usize) -> OrderBy {
        OrderBy { key: column(key), descending: self.chance(0.5), nulls_first: self.chance(0.5) }
    }
}
