//! A job under way: the tables it still has to read, and where its output goes.

use super::CompactionPolicy;
use super::picker::{Action, Job};
use super::shape::{RunShape, Shape, TableShape};
use crate::env::Env;
use crate::version::{LiveTable, Place, Version};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Tables of one run.
type Part<E> = (Place, Vec<Rc<LiveTable<E>>>);

/// A job with its tables.
pub(super) struct Work<E: Env> {
    /// What to do.
    pub action: Action,
    /// Where the upper inputs come from.
    pub level: usize,
    /// Inputs that are left, by run; within a run by key.
    pub parts: Vec<Part<E>>,
    /// Largest key of the upper inputs.
    pub position: Vec<u8>,
    /// The policy that asked for it.
    pub policy: Rc<CompactionPolicy>,
    /// One table, written anew where it is.
    pub rewrites: bool,
    target_level: usize,
    target_run: Option<u64>,
}

impl<E: Env> Work<E> {
    /// The job with the tables of the version it was picked from; `None` when they are not
    /// there, which would be an error of the picker.
    pub fn of(job: Job, version: &Version<E>, policy: Rc<CompactionPolicy>) -> Option<Self> {
        let live: BTreeMap<_, _> = version.tables().map(|(_, live)| (live.id, live)).collect();
        let tables = |ids: &[_]| -> Option<Vec<_>> {
            ids.iter().map(|id| live.get(id).map(|live| (*live).clone())).collect()
        };
        let mut parts = Vec::new();
        for (run, ids) in &job.upper {
            parts.push((Place { level: job.level, run: *run }, tables(ids)?));
        }
        if let Some((run, ids)) = &job.between {
            parts.push((Place { level: job.level + 1, run: *run }, tables(ids)?));
        }
        let position = parts.iter().flat_map(|(_, tables)| tables).map(|t| t.table.largest()).max();
        let position = position.unwrap_or_default().to_vec();
        if let Some(run) = job.target_run.filter(|_| !job.lower.is_empty()) {
            parts.push((Place { level: job.target_level, run }, tables(&job.lower)?));
        }
        Some(Work {
            action: job.action,
            level: job.level,
            parts,
            position,
            policy,
            rewrites: false,
            target_level: job.target_level,
            target_run: job.target_run,
        })
    }

    /// One table, to be written anew where it is.
    pub fn rewrite(place: Place, live: Rc<LiveTable<E>>, policy: Rc<CompactionPolicy>) -> Self {
        Work {
            action: Action::Merge,
            level: place.level,
            position: live.table.largest().to_vec(),
            parts: vec![(place, vec![live])],
            policy,
            rewrites: true,
            target_level: place.level,
            target_run: Some(place.run),
        }
    }

    /// Whether the version still has every input as this work knows it, nothing else came to where
    /// the output goes, and the policy has not changed since.
    pub fn is_current(&self, version: &Version<E>, policy: &Rc<CompactionPolicy>) -> bool {
        Rc::ptr_eq(&self.policy, policy)
            && !self.is_crossed(version)
            && self.parts.iter().all(|(place, tables)| {
                let run = version.levels[place.level].iter().find(|run| run.number == place.run);
                let has = |live: &Rc<LiveTable<E>>| {
                    run.is_some_and(|run| run.tables.iter().any(|other| Rc::ptr_eq(other, live)))
                };
                tables.iter().all(has)
            })
    }

    /// Whether the target run has a table between the inputs that is none of them: one that
    /// another job brought while this one was put aside. The output would overlap it.
    fn is_crossed(&self, version: &Version<E>) -> bool {
        let inputs = || self.inputs().map(|(_, live)| live);
        let Some(first) = inputs().map(|live| live.table.smallest()).min() else { return false };
        let Some(last) = inputs().map(|live| live.table.largest()).max() else { return false };
        let runs = &version.levels[self.target_level];
        let target = runs.iter().find(|run| Some(run.number) == self.target_run);
        let between = target
            .iter()
            .flat_map(|run| &run.tables)
            .filter(|other| other.table.smallest() <= last && first <= other.table.largest());
        between.into_iter().any(|other| !inputs().any(|input| Rc::ptr_eq(input, other)))
    }

    /// Every input with its place.
    pub fn inputs(&self) -> impl Iterator<Item = (Place, &Rc<LiveTable<E>>)> {
        self.parts.iter().flat_map(|(place, tables)| tables.iter().map(|live| (*place, live)))
    }

    /// Where outputs go; `number` names the new run when it is one.
    pub fn target(&mut self, number: impl FnOnce() -> u64) -> Place {
        let run = *self.target_run.get_or_insert_with(number);
        Place { level: self.target_level, run }
    }
}

impl Shape {
    /// The shape of a version.
    pub fn of<E: Env>(version: &Version<E>) -> Self {
        let table = |live: &LiveTable<E>| {
            let info = live.table.table.info();
            TableShape {
                id: live.id,
                first: live.table.bounds.first.clone(),
                last: live.table.bounds.last.clone(),
                bytes: live.bytes(),
                has_deletes: info.deletes > 0,
                mostly_deletes: info.deletes * 2 >= info.entries,
                newest_entry: live.written.newest,
                expiry: live.expiry,
            }
        };
        let levels = version.levels.iter().map(|runs| {
            let runs = runs.iter().map(|run| RunShape {
                number: run.number,
                tables: run.tables.iter().map(|live| table(live)).collect(),
            });
            runs.collect()
        });
        Shape { levels: levels.collect() }
    }
}
