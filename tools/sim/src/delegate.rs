//! An environment around the simulated one: everything goes to it, but for what the wrapper adds
//! in other traits.

/// Implements [`Env`](coronet_lsm::env::Env) for a type by handing every call to one of its
/// fields, a [`SimEnv`](crate::SimEnv).
#[macro_export]
macro_rules! delegate_env {
    ($type:ty, $field:ident) => {
        impl coronet_lsm::env::Env for $type {
            type File = $crate::SimFile;

            fn now(&self) -> coronet_lsm::env::Nanos {
                self.$field.now()
            }

            fn wall_micros(&self) -> u64 {
                self.$field.wall_micros()
            }

            fn random(&self) -> u64 {
                self.$field.random()
            }

            fn spawn(
                &self,
                class: coronet_lsm::env::TaskClass,
                task: impl ::std::future::Future<Output = ()> + 'static,
            ) {
                self.$field.spawn(class, task);
            }

            async fn sleep(&self, duration: ::std::time::Duration) {
                self.$field.sleep(duration).await;
            }

            async fn coop(&self) {
                self.$field.coop().await;
            }

            async fn open(
                &self,
                path: &::std::path::Path,
                mode: coronet_lsm::env::OpenMode,
            ) -> ::std::io::Result<$crate::SimFile> {
                self.$field.open(path, mode).await
            }

            async fn remove(&self, path: &::std::path::Path) -> ::std::io::Result<()> {
                self.$field.remove(path).await
            }

            async fn rename(
                &self,
                from: &::std::path::Path,
                to: &::std::path::Path,
            ) -> ::std::io::Result<()> {
                self.$field.rename(from, to).await
            }

            async fn link(
                &self,
                existing: &::std::path::Path,
                new: &::std::path::Path,
            ) -> ::std::io::Result<()> {
                self.$field.link(existing, new).await
            }

            async fn create_dir_all(&self, path: &::std::path::Path) -> ::std::io::Result<()> {
                self.$field.create_dir_all(path).await
            }

            async fn remove_dir(&self, path: &::std::path::Path) -> ::std::io::Result<()> {
                self.$field.remove_dir(path).await
            }

            async fn list(
                &self,
                dir: &::std::path::Path,
            ) -> ::std::io::Result<Vec<::std::path::PathBuf>> {
                self.$field.list(dir).await
            }

            async fn sync_dir(&self, dir: &::std::path::Path) -> ::std::io::Result<()> {
                self.$field.sync_dir(dir).await
            }
        }
    };
}
