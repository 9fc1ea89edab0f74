//! How far sinks have delivered, for targets that cannot keep that themselves.

use schemas::documents::sink::SinkPosition;
use uuid::Uuid;

use crate::error::StorageError;
use crate::numbered;
use crate::paths;
use crate::store::Store;

/// The position of one sink.
#[derive(Debug, Clone)]
pub struct SinkStore {
    store: Store,
    sink: Uuid,
}

impl SinkStore {
    /// The position of a sink.
    pub fn new(store: Store, sink: Uuid) -> Self {
        Self { store, sink }
    }

    /// Where it stands; none if nothing was sent yet.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn read(&self) -> Result<Option<SinkPosition>, StorageError> {
        match numbered::read(&self.store, &paths::sink_position(self.sink)).await {
            Ok(position) => Ok(Some(position)),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes where it stands.
    ///
    /// # Errors
    /// `Io`: it is the old one or the new one.
    pub async fn write(&self, position: &SinkPosition) -> Result<(), StorageError> {
        numbered::overwrite(&self.store, &paths::sink_position(self.sink), position).await
    }

    /// Forgets the sink.
    ///
    /// # Errors
    /// `Io`
    pub async fn remove(&self) -> Result<(), StorageError> {
        self.store.delete_below(&paths::sink(self.sink)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn position_is_replaced_and_forgotten() {
        let sinks = SinkStore::new(Store::in_memory(), Uuid::from_u128(1));
        assert_eq!(sinks.read().await.unwrap(), None);
        for parcels in 0..2 {
            let position = SinkPosition { format: 1, parcels, cursor: None, pending: None };
            sinks.write(&position).await.unwrap();
            assert_eq!(sinks.read().await.unwrap(), Some(position));
        }
        sinks.remove().await.unwrap();
        assert_eq!(sinks.read().await.unwrap(), None);
    }
}
