//! A few threads for whatever may wait. The kernel bounds how much is under way at once.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// Runs jobs on threads of its own; ends them when dropped, after the jobs that it has.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    max: usize,
}

impl Pool {
    /// A pool of up to `max` threads; they are started as they are needed.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            shared: Arc::default(),
            threads: Mutex::default(),
            max,
        }
    }

    /// Runs `job` on a thread of the pool. If no thread can be had it runs here and now.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        queue.jobs.push_back(Box::new(job));
        if queue.idle >= queue.jobs.len() {
            drop(queue);
            self.shared.wake.notify_one();
            return;
        }
        drop(queue);
        if !self.grow() {
            self.shared.wake.notify_one();
        }
    }

    /// Starts one more thread, if there may be one. Without any thread the waiting jobs run here.
    fn grow(&self) -> bool {
        let mut threads = self.threads.lock();
        if threads.len() >= self.max {
            return false;
        }
        let shared = Arc::clone(&self.shared);
        let name = format!("skrin-io-{}", threads.len());
        match std::thread::Builder::new()
            .name(name)
            .spawn(move || work(&shared))
        {
            Ok(thread) => threads.push(thread),
            Err(error) if threads.is_empty() => {
                tracing::error!(%error, "no thread can be started");
                drop(threads);
                while let Some(job) = take(&self.shared) {
                    job();
                }
            }
            Err(_) => return false,
        }
        true
    }
}

fn take(shared: &Shared) -> Option<Job> {
    shared.queue.lock().jobs.pop_front()
}

fn work(shared: &Shared) {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            // A job that panics drops its reply, which answers EIO; the thread goes on.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a handler panicked; its caller got EIO");
            }
            queue = shared.queue.lock();
            continue;
        }
        if queue.ended {
            return;
        }
        queue.idle += 1;
        shared.wake.wait(&mut queue);
        queue.idle -= 1;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.lock().ended = true;
        self.shared.wake.notify_all();
        let own = std::thread::current().id();
        for thread in self.threads.get_mut().drain(..) {
            // The last reference may be dropped by one of our own jobs.
            if thread.thread().id() != own && thread.join().is_err() {
                tracing::error!("a thread of the pool panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn jobs_run_side_by_side_up_to_the_bound_and_all_of_them_run() {
        let (pool, done) = (Pool::new(4), Arc::new(AtomicUsize::new(0)));
        let together = Arc::new(Barrier::new(4));
        for _ in 0..40 {
            let (done, together) = (Arc::clone(&done), Arc::clone(&together));
            pool.run(move || {
                together.wait();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        drop(pool);
        assert_eq!(done.load(Ordering::Relaxed), 40);
    }

    #[test]
    fn a_panicking_job_does_not_end_the_pool() {
        let (pool, done) = (Pool::new(1), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&done);
        pool.run(|| panic!("on purpose"));
        pool.run(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        drop(pool);
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }
}
