//! Keyspaces: working in one, creating, changing and listing them.

use std::sync::Arc;

use coronet_ring::{CoreId, KeyspaceId};

use super::call::Target;
use super::{Client, ClientError, RequestOptions};
use crate::codec::{
    KeyspaceAction, KeyspaceInfo, KeyspaceReply, KeyspaceRequest, Request, Settings,
};

impl Client {
    /// A client of the same connections whose keys and listings are those of another keyspace.
    /// Whether there is one of this name shows the first request.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// client.create_keyspace("carts", &[("n", "3"), ("conflicts", "siblings")]).await?;
    /// let carts = client.keyspace("carts");
    /// carts.put(b"anna", b"milk").await?;
    /// assert!(!client.get(b"anna").await?.exists());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keyspace(&self, name: &str) -> Self {
        Self { inner: Arc::new(self.inner.in_keyspace(name)) }
    }

    /// The keyspace this client works in.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// assert_ne!(client.keyspace("carts").keyspace_id(), client.keyspace_id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn keyspace_id(&self) -> KeyspaceId {
        self.inner.keyspace()
    }

    /// Creates a keyspace with these settings, by name: `n`, `r`, `w`, `conflicts` (`siblings` or
    /// `lww`), `compaction`, `compression`, `filter_prefix`, `ttl`. Creating it again with the
    /// same settings succeeds. When this returns, the node that answered keeps and serves the
    /// keyspace, and so do the nodes it reaches unless they take longer than two seconds. Those
    /// that are away learn it when they are back and refuse its requests, retryably, until then.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// let made = client.create_keyspace("sessions", &[("ttl", "1h"), ("r", "one")]).await?;
    /// println!("{} is keyspace {:?}", made.name, made.id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_keyspace(
        &self,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Result<KeyspaceInfo, ClientError> {
        self.change_keyspace(KeyspaceAction::Create, name, settings).await
    }

    /// Changes settings of a keyspace; an empty value is the default. `n` cannot be changed.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// client.alter_keyspace("sessions", &[("ttl", "2h"), ("compression", "lz4")]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn alter_keyspace(
        &self,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Result<KeyspaceInfo, ClientError> {
        self.change_keyspace(KeyspaceAction::Alter, name, settings).await
    }

    /// Every keyspace, as the node knows them that the client came to first.
    ///
    /// ```no_run
    /// # async fn example(client: coronet_net::client::Client)
    /// # -> Result<(), coronet_net::client::ClientError> {
    /// for keyspace in client.keyspaces().await? {
    ///     println!("{}", keyspace.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>, ClientError> {
        self.ask_keyspaces(KeyspaceAction::List, "", &[]).await
    }

    async fn change_keyspace(
        &self,
        action: KeyspaceAction,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Result<KeyspaceInfo, ClientError> {
        let changed = self.ask_keyspaces(action, name, settings).await?;
        let missing = || ClientError::Protocol("KEYSPACE was answered with none".to_owned());
        changed.into_iter().next().ok_or_else(missing)
    }

    async fn ask_keyspaces(
        &self,
        action: KeyspaceAction,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Result<Vec<KeyspaceInfo>, ClientError> {
        let mut buffer = Vec::new();
        let settings = Settings::encode(settings.iter().copied(), &mut buffer);
        let request = Request::Keyspace(KeyspaceRequest { action, name, settings });
        let options = RequestOptions::default();
        let replies = self.inner.call(Target::Core(CoreId(0)), &request, &options).await?;
        Ok(KeyspaceReply::decode(&replies.last.body)?.keyspaces)
    }
}
