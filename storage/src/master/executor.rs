//! Where the kernel's I/O runs: on the thread that calls it, whatever the runtime is made of.
//!
//! The kernel's own executors hand a future to another thread and wait for it. If that thread is the
//! only one of its runtime and the future waits in its turn (a checkpoint's does), both wait for ever.
//! Here nobody waits for another thread, so that a runtime of one thread, as simulations have, will do.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use delta_kernel::{KernelError, KernelResult};
use delta_kernel_default_engine::executor::TaskExecutor;
use futures::TryFutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{EnterGuard, Handle};

/// Polls futures on the caller's thread; their timers and sockets are the runtime's.
#[derive(Debug)]
pub(super) struct OnCaller(Handle);

impl OnCaller {
    /// For calls from threads that may block.
    pub(super) fn new(handle: Handle) -> Self {
        Self(handle)
    }
}

impl TaskExecutor for OnCaller {
    type Guard<'a> = EnterGuard<'a>;

    fn block_on<T>(&self, task: T) -> T::Output
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let _runtime = self.0.enter();
        to_the_end(task)
    }

    fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn(task);
    }

    fn spawn_blocking<T, R>(&self, task: T) -> BoxFuture<'_, KernelResult<R>>
    where
        T: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Box::pin(self.0.spawn_blocking(task).map_err(KernelError::join_failure))
    }

    fn enter(&self) -> EnterGuard<'_> {
        self.0.enter()
    }
}

/// Wakes the thread that polls. The flag is its own: a future within a future may take the other's turn.
struct Waiting {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn to_the_end<F: Future>(future: F) -> F::Output {
    let waiting = Arc::new(Waiting { thread: std::thread::current(), is_woken: AtomicBool::new(false) });
    let waker = Arc::clone(&waiting).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !waiting.is_woken.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn future_within_a_future_ends_on_a_runtime_of_one_thread() {
        let handle = Handle::current();
        let work = move || {
            let executor = Arc::new(OnCaller::new(handle));
            let inner = Arc::clone(&executor);
            executor.block_on(async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let one = inner.block_on(async { tokio::task::spawn(async { 1 }).await.unwrap() });
                tokio::time::sleep(Duration::from_millis(2)).await;
                one + inner.spawn_blocking(|| 2).await.unwrap()
            })
        };
        assert_eq!(tokio::task::spawn_blocking(work).await.unwrap(), 3);
    }
}
