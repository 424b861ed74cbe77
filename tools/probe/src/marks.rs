//! Branches that simulations should come through.

crate::named! {
    /// A branch that is counted while a run is watched.
    Mark {
        /// A stand-in takes the place of a replica that is away, for a write.
        StandInWrites = "stand-in-writes",
        /// A stand-in is asked by a read.
        StandInReads = "stand-in-reads",
        /// A write is refused because too few replicas are there.
        TooFewReplicas = "too-few-replicas",
        /// A write is answered "in doubt".
        InDoubt = "in-doubt",
        /// A second replica is asked to name a write because the first is silent.
        NamedElsewhere = "named-elsewhere",
        /// Two replicas have named one write.
        NamedTwice = "named-twice",
        /// A read asks another replica because one is slow.
        Hedge = "hedge",
        /// A read's digest differs from the copy at hand.
        DigestDiffers = "digest-differs",
        /// A replica is repaired after a read.
        ReadRepair = "read-repair",
        /// A read writes the merge back before it answers.
        WriteBack = "write-back",
        /// A listing goes on with another replica because one failed.
        ListElsewhere = "list-elsewhere",
        /// A replica had more keys of a partition than one answer of a listing holds.
        ListStretch = "list-stretch",
        /// A write is recognised by its token.
        TokenRepeated = "token-repeated",
        /// A write is refused because its key has too many versions.
        TooManyVersions = "too-many-versions",
        /// Two copies are merged of which neither has seen all of the other.
        Joined = "joined",
        /// A node takes a new incarnation.
        NewIncarnation = "new-incarnation",
        /// A core writes under a new name because writes of its own are lost.
        NewName = "new-name",
        /// A node starts with what it knew of its cluster.
        ViewRestored = "view-restored",
        /// A write waits while its key is read from disk.
        KeyLocked = "key-locked",
        /// A hint is noted.
        HintNoted = "hint-noted",
        /// Hints are found when a node starts.
        HintsFound = "hints-found",
        /// A hint arrived and is forgotten.
        HintArrived = "hint-arrived",
        /// A hint arrived, but its object has changed meanwhile.
        HintOutdated = "hint-outdated",
        /// The log ends in a batch that is not whole.
        TornTail = "torn-tail",
        /// The log goes on in another segment.
        LogSegment = "log-segment",
        /// A table of a flush or merge that a crash interrupted is found.
        OrphanTable = "orphan-table",
        /// A memtable has become a table.
        Flush = "flush",
        /// A merge of tables has made a step and is not done yet.
        MergeStep = "merge-step",
        /// A merge of tables is done.
        Merged = "merged",
        /// A merge of tables drops a deletion.
        DeletionDropped = "deletion-dropped",
    }
}
