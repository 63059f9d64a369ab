//! Where a data set is kept: a folder or an object-store URL becomes a [`Store`].

mod local;

use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::error::{Error, Result, printable};
use local::Durable;

/// A place for tables: an object store and the data set's place in it.
#[derive(Debug, Clone)]
pub struct Store {
    /// As the user wrote it, for messages.
    name: String,
    /// The data set's URL, with a slash at its end.
    url: Url,
    /// The whole store (bucket, file system); [`Store::prefix`] is the data set's place in it.
    root: Arc<dyn ObjectStore>,
}

impl Store {
    /// The store behind a folder or URL. Nothing is read or created.
    ///
    /// # Errors
    /// [`Error::Usage`] for a URL of an unknown scheme, [`Error::Dataset`] for one that cannot be used.
    pub fn new(location: &str) -> Result<Self> {
        let failed = |source: object_store::Error| Error::Dataset {
            dataset: printable(location),
            reason: format!("cannot be opened: {source}"),
            source: Some(Box::new(source)),
        };
        // A one-letter scheme is a drive, and a folder may well hold a colon.
        let parsed = Url::parse(location).ok().filter(|url| location.contains("://") && url.scheme().len() > 1);
        let (mut url, root): (Url, Arc<dyn ObjectStore>) = match parsed {
            None => (folder_url(location)?, Arc::new(Durable::default())),
            Some(url) => match url.scheme() {
                "file" => (url, Arc::new(Durable::default())),
                "s3" => {
                    let store = AmazonS3Builder::from_env().with_url(url.as_str()).build().map_err(failed)?;
                    (url, Arc::new(store))
                }
                other => {
                    return Err(Error::Usage(format!(
                        "{}: expected a folder or a URL of the schemes file or s3, found the scheme '{other}'",
                        printable(location)
                    )));
                }
            },
        };
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Store { name: printable(location), url, root })
    }

    /// As the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole object store, as DataFusion registers it.
    pub fn root(&self) -> &Arc<dyn ObjectStore> {
        &self.root
    }

    /// Scheme and authority: the store without the data set's place in it.
    pub fn root_url(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path("/");
        url
    }

    /// Something that stands in the data set's place and is none of `expected`.
    ///
    /// # Errors
    /// [`Error::Dataset`] where the place cannot be listed.
    pub async fn foreign_entry(&self, expected: &[&str]) -> Result<Option<String>> {
        let prefix = self.table_prefix("")?;
        let listed = self.root.list_with_delimiter(Some(&prefix)).await.map_err(|source| Error::Dataset {
            dataset: self.name.clone(),
            reason: format!("cannot be listed: {source}"),
            source: Some(Box::new(source)),
        })?;
        let names = listed.common_prefixes.into_iter().chain(listed.objects.into_iter().map(|object| object.location));
        Ok(names
            .filter_map(|path| path.filename().map(printable))
            .find(|name| !expected.contains(&name.as_str()) && name != "bases"))
    }

    /// The URL of a table of the data set.
    pub fn table_url(&self, table: &str) -> Result<Url> {
        let relative = if table.is_empty() { String::new() } else { format!("{table}/") };
        self.url.join(&relative).map_err(|e| Error::dataset(&self.name, format!("{table}: {e}")))
    }

    /// A table's place in the whole store.
    pub fn table_prefix(&self, table: &str) -> Result<Path> {
        Path::from_url_path(self.table_url(table)?.path()).map_err(|e| Error::dataset(&self.name, e.to_string()))
    }

    /// The store as a table sees it, its own place as the root.
    pub fn table_store(&self, table: &str) -> Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(PrefixStore::new(Arc::clone(&self.root), self.table_prefix(table)?)))
    }
}

fn folder_url(folder: &str) -> Result<Url> {
    if folder.is_empty() {
        return Err(Error::Usage("expected a folder or URL as the data set, found an empty name".into()));
    }
    let absolute = std::path::absolute(FilePath::new(folder)).map_err(|e| Error::io(folder, e))?;
    Url::from_directory_path(&absolute).map_err(|()| Error::dataset(printable(folder), "is not a usable path"))
}
