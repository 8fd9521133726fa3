//! Where archive files live: a local folder or an S3 bucket, behind one durable write.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use crate::error::BillingError;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArchiveStore {
    objects: Arc<dyn ObjectStore>,
    /// For a folder: where it is, because `object_store` does not sync what it writes.
    folder: Option<PathBuf>,
}

impl ArchiveStore {
    /// A folder (created if absent), or `s3://bucket/prefix` with the usual `AWS_…` environment.
    ///
    /// # Errors
    /// `StoreLocation`, naming what is wrong with it.
    pub fn open(location: &str) -> Result<ArchiveStore, BillingError> {
        let refused = |detail: String| BillingError::StoreLocation { url: location.to_owned(), detail };
        let Some(rest) = location.strip_prefix("s3://") else {
            let folder = location.strip_prefix("file://").unwrap_or(location);
            return Self::open_folder(Path::new(folder)).map_err(refused);
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(refused("the bucket's name is missing".to_owned()));
        }
        let bucket =
            AmazonS3Builder::from_env().with_bucket_name(bucket).build().map_err(|e| refused(e.to_string()))?;
        Ok(ArchiveStore { objects: Arc::new(PrefixStore::new(bucket, prefix)), folder: None })
    }

    fn open_folder(folder: &Path) -> Result<ArchiveStore, String> {
        std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        let folder = folder.canonicalize().map_err(|e| e.to_string())?;
        let objects = LocalFileSystem::new_with_prefix(&folder).map_err(|e| e.to_string())?;
        Ok(ArchiveStore { objects: Arc::new(objects), folder: Some(folder) })
    }

    /// Writes a file whole and durably, replacing one of the same name.
    ///
    /// Callers name files by what they hold, and hold the archiver's lock: what is replaced can only be an orphan.
    pub(crate) async fn put(&self, name: &str, content: Vec<u8>) -> Result<(), BillingError> {
        let Some(folder) = &self.folder else {
            self.objects.put(&name.into(), PutPayload::from(content)).await?;
            return Ok(());
        };
        let path = folder.join(name);
        let root = folder.clone();
        tokio::task::spawn_blocking(move || write_synced(&root, &path, &content))
            .await
            .map_err(|e| BillingError::Worker(e.to_string()))?
            .map_err(|source| BillingError::Folder { folder: folder.display().to_string(), source })
    }

    /// SHA-256 of a file as it is stored now, in hexadecimal; reads it in pieces.
    pub(crate) async fn sha256(&self, name: &str) -> Result<String, BillingError> {
        let mut pieces = self.objects.get(&name.into()).await?.into_stream();
        let mut hasher = Sha256::new();
        while let Some(piece) = pieces.next().await {
            hasher.update(&piece?);
        }
        Ok(hex::encode(hasher.finalize()))
    }

    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        self.objects.clone()
    }
}

/// 1. Content under a temporary name, synced; 2. renamed; 3. every folder above it synced, up to the root: after a
///    power cut the file is there whole or not at all.
fn write_synced(root: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(root);
    std::fs::create_dir_all(parent)?;
    // Not ending in .parquet: nothing that lists the folder mistakes it for a file.
    let temporary = path.with_extension("partial");
    let write = || {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        // The next attempt may have another name: on a full disk, halves of files must not pile up.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    for folder in parent.ancestors().take_while(|folder| folder.starts_with(root)) {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clicktally_proto::next_move::NextMove;

    use super::*;

    #[tokio::test]
    async fn a_file_written_is_the_file_hashed_and_a_second_write_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArchiveStore::open(folder.path().to_str().unwrap()).unwrap();
        for content in ["one", "two"] {
            store.put("raw/hour=x/a.parquet", content.into()).await.unwrap();
            assert_eq!(store.sha256("raw/hour=x/a.parquet").await.unwrap(), hex::encode(Sha256::digest(content)));
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_leaves_nothing_and_names_the_folder_and_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArchiveStore::open(folder.path().to_str().unwrap()).unwrap();
        // As the last step of a write, the rename fails like any other.
        std::fs::create_dir_all(folder.path().join("raw/a.parquet/in the way")).unwrap();
        let error = store.put("raw/a.parquet", "content".into()).await.unwrap_err();
        assert_eq!(error.next_move(), NextMove::Retry);
        assert!(error.to_string().contains("make room"), "{error}");
        assert!(error.to_string().contains(store.folder.as_ref().unwrap().to_str().unwrap()), "{error}");
        let left: Vec<_> =
            std::fs::read_dir(folder.path().join("raw")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["a.parquet"]);
    }

    #[test]
    fn a_bucket_without_a_name_is_refused() {
        assert!(matches!(ArchiveStore::open("s3:///x"), Err(BillingError::StoreLocation { .. })));
    }
}
