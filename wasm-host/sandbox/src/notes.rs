//! What the cells of a model had to say besides their answers.

use std::sync::{Mutex, PoisonError};

use lethe_server::message::{is_noted, notes_in};
use zeroize::Zeroizing;

use super::wiped_bytes;

/// So many notes are kept, and so much of each: they are made of names in the model.
const MOST: usize = 64;
const LONGEST: usize = 1024;

/// Notes, each once, in the order in which they came first.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<String>>);

impl Notes {
    /// Takes the notes that come with an answer, if there are any.
    pub(super) fn take(&self, answer: &Zeroizing<Vec<u8>>) {
        if !is_noted(answer) {
            return;
        }
        // What does not follow the format is an error where the answer is read.
        let notes = notes_in(wiped_bytes(answer.clone())).unwrap_or_default();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for mut note in notes {
            note.truncate(note.floor_char_boundary(LONGEST));
            if kept.len() < MOST && !kept.contains(&note) {
                kept.push(note);
            }
        }
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
