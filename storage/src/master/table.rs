//! The Delta table: every call here blocks.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::schema::SchemaRef;
use delta_kernel::snapshot::IncrementalReplay;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation};
use delta_kernel::{KernelError, Snapshot, SnapshotRef};
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use schemas::{Cut, Partition};
use uuid::Uuid;

use super::executor::OnCaller;
use super::file::{MasterFile, files_of};
use super::place::Place;
use crate::error::StorageError;

/// Who writes, in the table's history.
const ENGINE: &str = concat!("bifold/", env!("CARGO_PKG_VERSION"));

/// The transaction id whose version is the number of the store's owner: a table has one owner, and each commit moves it.
const OWNER: &str = "bifold/owner";

/// What came of a commit.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is in the table.
    Committed(SnapshotRef),
    /// Somebody else committed first: ours is not in the table.
    Conflicted,
    /// It failed, and only reading the table again tells whether ours is in it.
    Unknown(KernelError),
}

/// A Delta table and the kernel that reads and writes it.
pub(super) struct Table {
    pub(super) place: Arc<Place>,
    engine: DefaultEngine<OnCaller>,
    incarnation: Uuid,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("root", &self.place.root.as_str()).finish_non_exhaustive()
    }
}

impl Table {
    /// The kernel; its timers and sockets are those of `handle`.
    pub(super) fn new(place: Arc<Place>, incarnation: Uuid, handle: tokio::runtime::Handle) -> Self {
        let executor = Arc::new(OnCaller::new(handle));
        let engine = DefaultEngineBuilder::new(place.store.clone()).with_task_executor(executor).build();
        Self { place, engine, incarnation }
    }

    fn failed(&self, doing: &str) -> impl Fn(KernelError) -> StorageError {
        let context = format!("{doing} {}", self.place.root);
        move |error| StorageError::io(context.clone(), error)
    }

    /// Makes the table unless it is there, with statistics on the columns named. It is no error that
    /// somebody else makes it meanwhile.
    pub(super) fn ensure(&self, schema: &SchemaRef, statistics: &str) -> Result<SnapshotRef, StorageError> {
        if !self.place.has_table()? {
            let created = create_table(self.place.root.as_str(), schema.clone(), ENGINE, false)
                .with_table_properties([("delta.appendOnly", "true"), ("delta.dataSkippingStatsColumns", statistics)])
                .build(&self.engine, Box::new(FileSystemCommitter::new()))
                .and_then(|transaction| transaction.commit(&self.engine));
            match created {
                Ok(CommitResult::Committed(done)) => self.checksum(done.post_commit_snapshot().cloned()),
                Ok(CommitResult::Retryable(lost)) => return Err(self.failed("creating")(lost.error)),
                Err(error) if !self.place.has_table()? => return Err(self.failed("creating")(error)),
                Ok(CommitResult::Conflicted(_)) | Err(_) => {}
            }
        }
        let snapshot = self.load()?;
        if snapshot.schema() != *schema {
            let reason = "the table's columns are not the stream's".to_string();
            return Err(StorageError::Damaged { path: self.place.root.to_string(), reason });
        }
        Ok(snapshot)
    }

    /// The table as it is.
    pub(super) fn load(&self) -> Result<SnapshotRef, StorageError> {
        let builder = Snapshot::builder_for(self.place.root.as_str());
        builder
            .with_incremental_crc_replay(IncrementalReplay::Unlimited)
            .build(&self.engine)
            .map_err(self.failed("reading"))
    }

    fn transaction_id(&self, partition: Partition) -> String {
        format!("{}/{partition}", self.incarnation)
    }

    /// Where each partition's records end.
    pub(super) fn landed(&self, snapshot: &SnapshotRef, partitions: u32) -> Result<Cut, StorageError> {
        let mut cut = Cut::zero(partitions);
        for partition in 0..partitions {
            let end = snapshot.get_app_id_version(&self.transaction_id(partition), &self.engine);
            let end = end.map_err(self.failed("reading transactions of"))?.unwrap_or(0);
            cut.set(partition, end.unsigned_abs());
        }
        Ok(cut)
    }

    /// Number of the owner that wrote to the table last; 0 where a store has only one.
    pub(super) fn owner(&self, snapshot: &SnapshotRef) -> Result<u64, StorageError> {
        let owner = snapshot.get_app_id_version(OWNER, &self.engine);
        Ok(owner.map_err(self.failed("reading the owner of"))?.unwrap_or(0).unsigned_abs())
    }

    /// A commit on top of `snapshot` that says who owns the table from now on, and nothing else.
    pub(super) fn claim(&self, snapshot: &SnapshotRef, epoch: u64) -> Result<Outcome, StorageError> {
        let builder = snapshot.clone().update_table(UpdateTableOperation::StreamingUpdate, ENGINE, false);
        let builder = builder.with_transaction_id(OWNER, epoch as i64);
        let transaction = builder.build(&self.engine, Box::new(FileSystemCommitter::new()));
        self.outcome(transaction.map_err(self.failed("claiming"))?.commit(&self.engine))
    }

    /// The table's files, by partition and offset.
    pub(super) fn files(&self, snapshot: &SnapshotRef, time: Option<&str>) -> Result<Vec<MasterFile>, StorageError> {
        let failed = self.failed("listing files of");
        let scan = snapshot.clone().scan_builder().build().map_err(&failed)?;
        let mut files = Vec::new();
        for listed in scan.scan_metadata(&self.engine).map_err(&failed)? {
            let (data, selected) = listed.map_err(&failed)?.scan_files.into_parts();
            let rows: RecordBatch = (*ArrowEngineData::try_from_engine_data(data).map_err(&failed)?).into();
            files.extend(files_of(&rows, &selected, time)?);
        }
        files.sort_by_key(|file| (file.partition, file.from));
        Ok(files)
    }

    /// Adds files and moves the partitions' ends in one commit on top of `snapshot`.
    pub(super) fn commit(
        &self,
        snapshot: &SnapshotRef,
        add_actions: RecordBatch,
        ends: &Cut,
        moved: &[Partition],
    ) -> Result<Outcome, StorageError> {
        let failed = self.failed("committing to");
        let mut builder =
            snapshot.clone().update_table(UpdateTableOperation::StreamingUpdate, ENGINE, true).with_blind_append();
        for &partition in moved {
            builder = builder.with_transaction_id(self.transaction_id(partition), ends.offset(partition) as i64);
        }
        let mut transaction = builder.build(&self.engine, Box::new(FileSystemCommitter::new())).map_err(&failed)?;
        transaction.add_files(Box::new(ArrowEngineData::new(add_actions)));
        self.outcome(transaction.commit(&self.engine))
    }

    fn outcome(&self, committed: Result<CommitResult, KernelError>) -> Result<Outcome, StorageError> {
        Ok(match committed {
            Ok(CommitResult::Committed(done)) => match done.post_commit_snapshot() {
                Some(snapshot) => Outcome::Committed(snapshot.clone()),
                None => Outcome::Committed(self.load()?),
            },
            Ok(CommitResult::Conflicted(_)) => Outcome::Conflicted,
            Ok(CommitResult::Retryable(lost)) => Outcome::Unknown(lost.error),
            Err(error) => Outcome::Unknown(error),
        })
    }

    /// Writes a checkpoint and a checksum, which make opening fast. The snapshot that knows of them;
    /// the old one if they could not be written.
    pub(super) fn checkpoint(&self, snapshot: &SnapshotRef) -> SnapshotRef {
        match snapshot.checkpoint(&self.engine, None) {
            Ok((_, with_checkpoint)) => {
                self.checksum(Some(with_checkpoint.clone()));
                with_checkpoint
            }
            Err(error) => {
                tracing::warn!(table = %self.place.root, %error, "no checkpoint: the next one will do");
                snapshot.clone()
            }
        }
    }

    /// Without it the ends of the partitions are found by replaying the log, once for each.
    fn checksum(&self, snapshot: Option<SnapshotRef>) {
        if let Some(Err(error)) = snapshot.map(|snapshot| snapshot.write_checksum(&self.engine)) {
            tracing::debug!(table = %self.place.root, %error, "no checksum: opening takes longer");
        }
    }
}
