//! A task's progress as it happens: its place in the queue, each step, its end.

use crate::keys::Caller;
use crate::wait::POLL;
use crate::{App, Standing};
use domain::fault::Fault;
use domain::id::TaskId;
use domain::task::{Progress, Task, TaskState};
use store::contract::TaskEvent;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// So many tasks go before it.
    Queued {
        position: u64,
    },
    /// In a worker's hands; no step has ended yet.
    Started,
    Step(Progress),
    /// The last news.
    Ended(Box<Task>),
}

/// One watcher of one task.
pub struct Watch {
    app: App,
    caller: Caller,
    id: TaskId,
    events: Receiver<TaskEvent>,
    /// The attempt that the last news were of: a new attempt counts its steps anew.
    attempt: u32,
    last: Option<News>,
}

impl App {
    pub async fn watch(&self, caller: &Caller, id: &str) -> Result<Watch, Fault> {
        let events = self.inner.stores.events.subscribe();
        let task = self.status(caller, id).await?.task;
        Ok(Watch { app: self.clone(), caller: caller.clone(), id: task.id, events, attempt: 0, last: None })
    }
}

impl Watch {
    /// The next news, each once; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<News, Fault>> {
        if matches!(self.last, Some(News::Ended(_))) {
            return None;
        }
        loop {
            let standing = match self.app.status(&self.caller, self.id.as_str()).await {
                Ok(standing) => standing,
                Err(fault) => return Some(Err(fault)),
            };
            let is_new_attempt = standing.task.attempt != self.attempt;
            self.attempt = standing.task.attempt;
            let news = news_of(standing);
            if self.is_news(&news, is_new_attempt) {
                return Some(Ok(self.told(news)));
            }
            if let Some(step) = self.stirring().await {
                let news = News::Step(step);
                if self.is_news(&news, false) {
                    return Some(Ok(self.told(news)));
                }
            }
        }
    }

    fn told(&mut self, news: News) -> News {
        self.last = Some(news.clone());
        news
    }

    /// The store knows steps more coarsely than the events, so what it says may be old.
    fn is_news(&self, news: &News, is_new_attempt: bool) -> bool {
        match (&self.last, news) {
            (Some(News::Step(last)), News::Step(now)) if !is_new_attempt => now.step > last.step,
            (Some(News::Step(_)), News::Started) => is_new_attempt,
            (last, now) => last.as_ref() != Some(now),
        }
    }

    /// Until something happens to this task, or a poll is due; a step comes with its number.
    async fn stirring(&mut self) -> Option<Progress> {
        let due = Instant::now() + POLL;
        loop {
            match timeout_at(due, self.events.recv()).await {
                Ok(Ok(TaskEvent::Progress(id, progress))) if id == self.id => return Some(progress),
                Ok(Ok(TaskEvent::Changed(id))) if id == self.id => return None,
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Closed)) => {
                    tokio::time::sleep_until(due).await;
                    return None;
                }
                Ok(Err(RecvError::Lagged(_))) | Err(_) => return None,
            }
        }
    }
}

fn news_of(standing: Standing) -> News {
    match standing.task.state {
        TaskState::Queued => News::Queued { position: standing.position.unwrap_or(0) },
        TaskState::Running => standing.task.progress.map_or(News::Started, News::Step),
        TaskState::Succeeded(_) | TaskState::Failed(_) | TaskState::Cancelled => News::Ended(Box::new(standing.task)),
    }
}
