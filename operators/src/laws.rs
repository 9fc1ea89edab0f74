//! The laws that make a merged answer exact, checked on real inputs.
//!
//! An aggregate that keeps them may be folded in any order, in any number of pieces, by any number of
//! threads, through any file: its state bytes and its answer depend on the multiset of inputs alone.

pub(crate) mod call;
mod chance;
mod round_trip;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::logical_expr::{AggregateUDF, EmitTo};

pub use self::call::Argument;
use self::call::{Call, States};
use self::chance::Chance;
use self::round_trip::{through_ipc, through_parquet};

/// A law that does not hold, and for what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("aggregate {aggregate}: law broken: {law}: {detail}")]
pub struct LawBroken {
    /// SQL name.
    pub aggregate: String,
    /// What should have held.
    pub law: &'static str,
    /// What was found.
    pub detail: String,
}

/// Checks every law of `aggregate` called with `args`; `seed` decides orders and splits.
///
/// The arguments are columns of equal length (of types that the aggregate takes without a cast) and
/// literals.
pub fn check(aggregate: &Arc<AggregateUDF>, args: &[Argument], seed: u64) -> Result<(), LawBroken> {
    let broken = |law, detail: String| LawBroken { aggregate: aggregate.name().to_string(), law, detail };
    let call = Call::new(aggregate, args).map_err(|error| broken("it can be called", error.to_string()))?;
    let mut laws = Laws { call: &call, chance: Chance::new(seed) };
    for (law, holds) in Laws::ALL {
        match holds(&mut laws) {
            Ok(true) => {}
            Ok(false) => return Err(broken(law, format!("seed {seed}, {} rows", call.rows()))),
            Err(error) => return Err(broken(law, format!("seed {seed}: {error}"))),
        }
    }
    Ok(())
}

type Holds = datafusion::common::Result<bool>;
type Law<L> = (&'static str, fn(&mut L) -> Holds);

struct Laws<'a> {
    call: &'a Call,
    chance: Chance,
}

impl Laws<'_> {
    const ALL: [Law<Self>; 12] = [
        ("the order of the rows does not matter", Self::any_order),
        ("the size of the batches does not matter", Self::any_batch_size),
        ("merge is commutative", Self::commutative),
        ("merge is associative", Self::associative),
        ("an empty state is neutral", Self::neutral),
        ("any split and merge tree gives the same state", Self::any_tree),
        ("a group among others is like a group alone", Self::grouped),
        ("a filter is like leaving the rows out", Self::filtered),
        ("rows converted to states merge into the same state", Self::converted),
        ("a state survives Arrow IPC and Parquet", Self::survives_files),
        ("evaluating again gives the same answer", Self::evaluates_again),
        ("emitting in parts is like emitting all", Self::emits_in_parts),
    ];

    fn whole(&self) -> datafusion::common::Result<States> {
        self.call.fold(&self.call.all_rows())
    }

    /// Random parts of all rows, some of them empty, with their states.
    fn parts(&mut self, count: usize) -> datafusion::common::Result<Vec<States>> {
        let mut parts = vec![Vec::new(); count];
        for row in self.chance.shuffled(self.call.all_rows()) {
            parts[self.chance.below(count)].push(row);
        }
        parts.iter().map(|rows| self.call.fold(rows)).collect()
    }

    fn any_order(&mut self) -> Holds {
        let shuffled = self.chance.shuffled(self.call.all_rows());
        Ok(self.call.fold(&shuffled)?.bytes()? == self.whole()?.bytes()?)
    }

    fn any_batch_size(&mut self) -> Holds {
        let whole = self.whole()?.bytes()?;
        for size in [1, 7, 8192] {
            let mut table = self.call.table()?;
            for rows in self.call.all_rows().chunks(size) {
                table.update(rows, &vec![0; rows.len()], None, 1)?;
            }
            if table.state(EmitTo::All, 1)?.bytes()? != whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn commutative(&mut self) -> Holds {
        let parts = self.parts(2)?;
        let forth = self.call.merge(&[&parts[0], &parts[1]])?;
        let back = self.call.merge(&[&parts[1], &parts[0]])?;
        Ok(forth.bytes()? == back.bytes()?)
    }

    fn associative(&mut self) -> Holds {
        let parts = self.parts(3)?;
        let left = self.call.merge(&[&self.call.merge(&[&parts[0], &parts[1]])?, &parts[2]])?;
        let right = self.call.merge(&[&parts[0], &self.call.merge(&[&parts[1], &parts[2]])?])?;
        Ok(left.bytes()? == right.bytes()?)
    }

    fn neutral(&mut self) -> Holds {
        let (whole, empty) = (self.whole()?, self.call.fold(&[])?);
        let bytes = whole.bytes()?;
        let before = self.call.merge(&[&empty, &whole])?.bytes()? == bytes;
        let after = self.call.merge(&[&whole, &empty])?.bytes()? == bytes;
        Ok(before && after && self.call.merge(&[&empty, &empty])?.bytes()? == empty.bytes()?)
    }

    fn any_tree(&mut self) -> Holds {
        let whole = self.whole()?.bytes()?;
        let count = 2 + self.chance.below(8);
        let mut parts = self.parts(count)?;
        while parts.len() > 1 {
            let one = parts.swap_remove(self.chance.below(parts.len()));
            let other = parts.swap_remove(self.chance.below(parts.len()));
            parts.push(self.call.merge(&[&one, &other])?);
        }
        Ok(parts[0].bytes()? == whole)
    }

    fn grouped(&mut self) -> Holds {
        let count = 1 + self.chance.below(5);
        let rows = self.call.all_rows();
        let groups: Vec<usize> = rows.iter().map(|_| self.chance.below(count)).collect();
        let mut table = self.call.table()?;
        table.update(&rows, &groups, None, count)?;
        let states = table.state(EmitTo::All, count)?;
        let values = self.call.evaluate(&states);
        for group in 0..count {
            let own: Vec<usize> = rows.iter().copied().filter(|row| groups[*row] == group).collect();
            if states.row(group) != self.call.fold(&own)? {
                return Ok(false);
            }
            let alone = self.call.scalar(&own);
            let same = match (&values, alone) {
                (Ok(values), Ok(alone)) => values.slice(group, 1).as_ref() == alone.as_ref(),
                (Err(_), _) => true, // some group has no answer (a sum out of range)
                (Ok(_), Err(_)) => false,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn filtered(&mut self) -> Holds {
        let rows = self.call.all_rows();
        let passes: Vec<Option<bool>> =
            rows.iter().map(|_| [Some(true), Some(false), None][self.chance.below(3)]).collect();
        let kept: Vec<usize> = rows.iter().copied().filter(|row| passes[*row] == Some(true)).collect();
        let mut table = self.call.table()?;
        table.update(&rows, &vec![0; rows.len()], Some(&filter_of(&passes)), 1)?;
        Ok(table.state(EmitTo::All, 1)?.bytes()? == self.call.fold(&kept)?.bytes()?)
    }

    fn converted(&mut self) -> Holds {
        let rows = self.chance.shuffled(self.call.all_rows());
        let states = self.call.table()?.convert(&rows)?;
        Ok(self.call.merge(&[&states])?.bytes()? == self.whole()?.bytes()?)
    }

    fn survives_files(&mut self) -> Holds {
        let mut parts = self.parts(4)?;
        parts.push(self.whole()?);
        parts.push(self.call.fold(&[])?);
        let states = States::concat(&parts)?;
        let ipc = through_ipc(&states)?;
        let parquet = through_parquet(&states)?;
        let merged = self.call.merge(&[&states])?.bytes()?;
        Ok(ipc == states
            && parquet == states
            && self.call.merge(&[&ipc])?.bytes()? == merged
            && self.call.merge(&[&parquet])?.bytes()? == merged)
    }

    fn evaluates_again(&mut self) -> Holds {
        let states = self.whole()?;
        let first = self.call.evaluate(&states).map_err(|error| error.to_string());
        let again = self.call.evaluate(&self.call.merge(&[&states])?).map_err(|error| error.to_string());
        let scalar = self.call.scalar(&self.call.all_rows()).map_err(|error| error.to_string());
        Ok(first == again && scalar == first)
    }

    fn emits_in_parts(&mut self) -> Holds {
        let count = 2 + self.chance.below(5);
        let rows = self.call.all_rows();
        let groups: Vec<usize> = rows.iter().map(|_| self.chance.below(count)).collect();
        let first = 1 + self.chance.below(count - 1);
        let mut table = self.call.table()?;
        table.update(&rows, &groups, None, count)?;
        let all = table.state(EmitTo::All, count)?;
        table.update(&rows, &groups, None, count)?;
        let head = table.state(EmitTo::First(first), count)?;
        // What is left moves down and goes on growing.
        let late: Vec<usize> = rows.iter().copied().filter(|row| groups[*row] >= first).collect();
        let moved: Vec<usize> = late.iter().map(|row| groups[*row] - first).collect();
        table.update(&late, &moved, None, count - first)?;
        let tail = table.state(EmitTo::All, count - first)?;
        let (expected_head, rest) = all.split(first);
        let doubled = self.call.merge_rows(&rest, &rest)?;
        Ok(head == expected_head && tail.bytes()? == doubled.bytes()?)
    }
}

/// A filter whose nulls hide a true.
fn filter_of(passes: &[Option<bool>]) -> BooleanArray {
    let values: BooleanBuffer = passes.iter().map(|pass| pass.unwrap_or(true)).collect();
    let nulls: NullBuffer = passes.iter().map(Option::is_some).collect();
    BooleanArray::new(values, Some(nulls))
}
