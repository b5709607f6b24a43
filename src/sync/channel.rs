//! How does work get from one thread to another?
//!
//! A channel without a bound for any number of senders and receivers: crossbeam's, or under loom a list with a lock, so
//! that a model sees who waits for whom. Bounds are kept by what is sent, not by the channel.

#[cfg(not(loom))]
mod imp {
    use crossbeam::channel;

    /// Where work is put.
    #[derive(Debug)]
    pub struct Sender<T>(channel::Sender<T>);

    /// Where work is got.
    #[derive(Debug)]
    pub struct Receiver<T>(channel::Receiver<T>);

    /// A channel.
    #[must_use]
    pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = channel::unbounded();
        (Sender(sender), Receiver(receiver))
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> Sender<T> {
        /// Puts `work` at the end; gives it back where no receiver is left.
        ///
        /// # Errors
        /// The work.
        pub fn send(&self, work: T) -> Result<(), T> {
            self.0.send(work).map_err(|back| back.0)
        }
    }

    impl<T> Receiver<T> {
        /// Waits for work; `None` where there is none and no sender is left.
        #[must_use]
        pub fn recv(&self) -> Option<T> {
            self.0.recv().ok()
        }

        /// Work, if there is any.
        #[must_use]
        pub fn try_recv(&self) -> Option<T> {
            self.0.try_recv().ok()
        }

        /// Whether there is none.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }
}

#[cfg(loom)]
mod imp {
    use crate::sync::{Arc, Condvar, Mutex};
    use std::collections::VecDeque;

    #[derive(Debug)]
    struct State<T> {
        work: VecDeque<T>,
        senders: usize,
    }

    #[derive(Debug)]
    struct Shared<T> {
        state: Mutex<State<T>>,
        came: Condvar,
    }

    /// Where work is put.
    #[derive(Debug)]
    pub struct Sender<T>(Arc<Shared<T>>);

    /// Where work is got.
    #[derive(Debug)]
    pub struct Receiver<T>(Arc<Shared<T>>);

    /// A channel.
    #[must_use]
    pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        let state = Mutex::new(State { work: VecDeque::new(), senders: 1 });
        let shared = Arc::new(Shared { state, came: Condvar::new() });
        (Sender(shared.clone()), Receiver(shared))
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.state.lock().senders += 1;
            Self(self.0.clone())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.state.lock().senders -= 1;
            self.0.came.notify_all();
        }
    }

    impl<T> Sender<T> {
        /// Puts `work` at the end.
        ///
        /// # Errors
        /// None.
        pub fn send(&self, work: T) -> Result<(), T> {
            self.0.state.lock().work.push_back(work);
            self.0.came.notify_one();
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        /// Waits for work; `None` where there is none and no sender is left.
        #[must_use]
        pub fn recv(&self) -> Option<T> {
            let mut state = self.0.state.lock();
            while state.work.is_empty() && state.senders > 0 {
                state = self.0.came.wait(state);
            }
            state.work.pop_front()
        }

        /// Work, if there is any.
        #[must_use]
        pub fn try_recv(&self) -> Option<T> {
            self.0.state.lock().work.pop_front()
        }

        /// Whether there is none.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.0.state.lock().work.is_empty()
        }
    }
}

pub use imp::{Receiver, Sender, unbounded};
