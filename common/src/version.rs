//! The API level this build answers to, as `/version` and `--version` show it.

/// The Kubernetes API level that every daemon of this build speaks.
pub const KUBERNETES_MAJOR: &str = "1";
/// See [`KUBERNETES_MAJOR`].
pub const KUBERNETES_MINOR: &str = "36";
/// The release of that level, without build metadata.
pub const RELEASE: &str = "1.36.2";
/// `gitVersion` as clients compare it (semantic version, `v` first). Build metadata names this product.
pub const GIT_VERSION: &str = concat!("v1.36.2+pintle.", env!("CARGO_PKG_VERSION"));

/// The line that `--version` prints, worded as upstream words it.
pub fn version_line() -> String {
    format!("Kubernetes {GIT_VERSION}")
}

/// The `User-Agent` of a component: `kubelet/v1.36.2 (linux/amd64) pintle`.
pub fn user_agent(component: &str) -> String {
    format!("{component}/{GIT_VERSION} (linux/amd64) pintle/{}", env!("CARGO_PKG_VERSION"))
}
