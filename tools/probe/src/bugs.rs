//! Mistakes made on purpose: each must be found by a checker within a bounded number of seeds.

crate::named! {
    /// A mistake that a simulated run can be told to make (`docs/SEEDED_BUGS.md`).
    Bug {
        /// A write is answered when one replica fewer than W has stored it.
        AckOneShort = "ack-one-short",
        /// The replica that names a write counts as having stored it before its disk has.
        NamerCountsEarly = "namer-counts-early",
        /// Stand-ins count although the request asks for a strict quorum.
        StrictCountsStandIns = "strict-counts-stand-ins",
        /// A write that may have been applied is answered "not applied".
        DoubtIsRefusal = "doubt-is-refusal",
        /// A read answers with the first copy that arrived instead of the merge of all.
        ReadsFirstCopy = "reads-first-copy",
        /// A digest that differs from the copy at hand counts as equal.
        DigestAlwaysMatches = "digest-always-matches",
        /// A read that found replicas to differ does not repair them.
        RepairForgotten = "repair-forgotten",
        /// A monotonic read answers without writing back what it found.
        WriteBackForgotten = "write-back-forgotten",
        /// A listing leaves out the last key of a stretch that was cut.
        ListSkipsKey = "list-skips-key",
        /// A listing shows keys whose value was deleted.
        ListShowsDeleted = "list-shows-deleted",
        /// Merging two copies loses a sibling.
        MergeDropsSibling = "merge-drops-sibling",
        /// Merging two copies keeps a version that the other side has replaced.
        MergeKeepsReplaced = "merge-keeps-replaced",
        /// A write prunes an entry of the key's version vector.
        VectorPruned = "vector-pruned",
        /// What a writer's context has seen is not recorded with its write.
        ContextForgotten = "context-forgotten",
        /// A context is taken for any key.
        ContextOfAnyKey = "context-of-any-key",
        /// A deletion removes versions that its context has not seen.
        DeleteIgnoresContext = "delete-ignores-context",
        /// A write that was retried through another coordinator is shown twice.
        RetryShownTwice = "retry-shown-twice",
        /// A node that restarts after a crash names writes as it did before, counting from what it has.
        OldIncarnation = "old-incarnation",
        /// A replica stores what it is sent instead of merging it.
        MergeOverwrites = "merge-overwrites",
        /// A stand-in does not note for whom it keeps a write.
        HintNotNoted = "hint-not-noted",
        /// A hint is forgotten when it is sent, not when it has arrived.
        HintForgottenWhenSent = "hint-forgotten-when-sent",
        /// Hints are forgotten at a restart.
        HintsForgottenAtStart = "hints-forgotten-at-start",
        /// A durable write is answered before the log is synced.
        AckBeforeSync = "ack-before-sync",
        /// The log's replay does not verify the checksum of a batch.
        LogUnchecked = "log-unchecked",
        /// The log is cut when a flush begins instead of when its table counts.
        LogCutEarly = "log-cut-early",
        /// A table counts before it is synced.
        TableNotSynced = "table-not-synced",
        /// A change of the manifest is written as two records: what goes, then what comes.
        ManifestInParts = "manifest-in-parts",
        /// A flush keeps the oldest version of a key instead of the newest.
        FlushKeepsOldest = "flush-keeps-oldest",
        /// Tables of one level are searched oldest first.
        OldestTableFirst = "oldest-table-first",
        /// A table's filter denies keys that are in the table.
        FilterDenies = "filter-denies",
        /// A table's filter denies scans prefixes of keys that are in the table.
        FilterDeniesPrefix = "filter-denies-prefix",
        /// A merge of tables keeps the older of two versions.
        MergeKeepsOlder = "merge-keeps-older",
    }
}
