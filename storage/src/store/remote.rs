//! Opening an object store by its URL; options and credentials come from the environment.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, Error, ObjectStore, ObjectStoreScheme, Result, RetryConfig};
use url::Url;

/// How long one request is tried again before its caller hears of it: the callers try again too, and say so.
const RETRY_TIMEOUT: Duration = Duration::from_secs(45);

/// The store of a whole bucket, and where in it the URL points.
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::new().with_url(url.as_str()).with_retry(retries());
            let builder = environment().fold(builder, |builder, (name, value)| match name.parse() {
                Ok(option) => builder.with_config(option, value),
                Err(_) => builder,
            });
            Arc::new(builder.build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::new().with_url(url.as_str()).with_retry(retries());
            let builder = environment().fold(builder, |builder, (name, value)| match name.parse() {
                Ok(option) => builder.with_config(option, value),
                Err(_) => builder,
            });
            Arc::new(builder.build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::new().with_url(url.as_str()).with_retry(retries());
            let builder = environment().fold(builder, |builder, (name, value)| match name.parse() {
                Ok(option) => builder.with_config(option, value),
                Err(_) => builder,
            });
            Arc::new(builder.build()?)
        }
        _ => {
            let what = format!("{}: not one of s3, gs, az, file", url.scheme());
            return Err(Error::Generic { store: "bifold", source: what.into() });
        }
    };
    Ok((store, path))
}

/// The environment's variables in the spelling that object stores take their options in.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?.to_lowercase();
        let ours = ["aws_", "google_", "azure_"].iter().any(|family| name.starts_with(family));
        if ours { Some((name, value.into_string().ok()?)) } else { None }
    })
}

fn retries() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(2), base: 2.0 };
    RetryConfig { backoff, max_retries: 60, retry_timeout: RETRY_TIMEOUT }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::s3("s3://bucket/some/where/", "some/where")]
    #[case::google("gs://bucket/where/", "where")]
    #[case::azure("az://container/where/", "where")]
    fn url_leads_to_its_place_in_the_bucket(#[case] url: &str, #[case] place: &str) {
        let url = Url::parse(url).unwrap();
        let (scheme, path) = ObjectStoreScheme::parse(&url).unwrap();
        assert!(!matches!(scheme, ObjectStoreScheme::Http));
        assert_eq!(path.as_ref(), place);
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        let refused = open(&Url::parse("ftp://host/x").unwrap()).unwrap_err().to_string();
        assert!(refused.contains("ftp"), "{refused}");
        let refused = open(&Url::parse("http://host/x").unwrap()).unwrap_err().to_string();
        assert!(refused.contains("not one of s3, gs, az, file"), "{refused}");
    }
}
