//! Decoders of others on bytes that nobody has vouched for: Arrow's and Parquet's panic on some that no writer makes.
//! Such a panic is damage to what was read, not the end of the task that reads it.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Counts a level for as long as it is there.
struct Level;

impl Level {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// True where a panic of this thread is caught and becomes an error: for those who count panics.
pub fn is_guarded() -> bool {
    DEPTH.get() > 0
}

/// What `work` gives, or the words of its panic. Nothing that it changes may be used after a panic.
///
/// # Errors
/// It has panicked.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let _level = Level::enter();
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| format!("it cannot be decoded: {}", words(panic.as_ref())))
}

/// [`guarded`] for work that waits.
pub(crate) async fn guarded_async<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| match guarded(|| work.as_mut().poll(context)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for no reason that was given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_an_error_with_its_words() {
        assert_eq!(guarded(|| 7), Ok(7));
        let none: Vec<u32> = vec![];
        assert!(guarded(|| none[3]).unwrap_err().contains("index out of bounds"));
        assert!(!is_guarded());
        let inside = guarded(is_guarded).unwrap();
        assert!(inside);
        let later = futures::executor::block_on(guarded_async(async { none[usize::from(is_guarded())] }));
        assert!(later.unwrap_err().contains("index out of bounds"));
    }
}
