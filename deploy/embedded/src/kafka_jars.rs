//! Fetches Apache Kafka's jars once from Maven Central into a cache that all runs share.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::error::EmbeddedError;

pub(crate) const KAFKA_VERSION: &str = "4.1.0";
const SLF4J_VERSION: &str = "1.7.36";

const JAVA_REMEDY: &str = "install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)";
const MAVEN_REMEDY: &str = "install Maven, which fetches Apache Kafka once (Debian: apt-get install maven), or put Kafka's jars into the cache folder";

/// The cache folder: `$CLICKTALLY_CACHE`, else `~/.cache/clicktally`.
fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("CLICKTALLY_CACHE") {
        return PathBuf::from(cache);
    }
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache").join("clicktally")
}

/// Returns the folder that holds all jars and fetches them if they are missing. Blocks for about ten seconds the first
/// time.
pub(crate) fn ensure() -> Result<PathBuf, EmbeddedError> {
    need("java", "-version", JAVA_REMEDY)?;
    let folder = cache().join("kafka").join(KAFKA_VERSION);
    if is_complete(&folder) {
        return Ok(folder);
    }
    let parent = cache().join("kafka");
    std::fs::create_dir_all(&parent).map_err(EmbeddedError::io("create", &parent))?;
    // Several test processes may find the jars missing at the same time. One fetches them, the others wait.
    let lock_path = parent.join("fetch.lock");
    let lock = File::create(&lock_path).map_err(EmbeddedError::io("create", &lock_path))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| EmbeddedError::io("lock", &lock_path)(errno.into()))?;
    if !is_complete(&folder) {
        fetch(&parent, &folder)?;
    }
    Ok(folder)
}

fn is_complete(folder: &Path) -> bool {
    folder.join(format!("kafka_2.13-{KAFKA_VERSION}.jar")).is_file()
        && folder.join(format!("kafka-tools-{KAFKA_VERSION}.jar")).is_file()
        && folder.join(format!("slf4j-simple-{SLF4J_VERSION}.jar")).is_file()
}

fn fetch(parent: &Path, folder: &Path) -> Result<(), EmbeddedError> {
    need("mvn", "--version", MAVEN_REMEDY)?;
    tracing::info!(version = KAFKA_VERSION, to = %folder.display(), "fetching Apache Kafka from Maven Central");
    let partial = parent.join("partial");
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).map_err(EmbeddedError::io("create", &partial))?;
    let project = partial.join("pom.xml");
    std::fs::write(&project, project_file()).map_err(EmbeddedError::io("write", &project))?;
    let jars = partial.join("jars");
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&project)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .map_err(|source| EmbeddedError::Spawn { program: "mvn".to_owned(), source })?;
    if !output.status.success() || !is_complete(&jars) {
        let text = [output.stdout, output.stderr].concat();
        return Err(EmbeddedError::Fetch { output: String::from_utf8_lossy(&text).into_owned() });
    }
    // Rename last, so that the folder exists only when it is complete.
    let _ = std::fs::remove_dir_all(folder);
    std::fs::rename(&jars, folder).map_err(EmbeddedError::io("rename into place", folder))?;
    let _ = std::fs::remove_dir_all(&partial);
    Ok(())
}

fn project_file() -> String {
    // Without slf4j-simple (or another binding) Kafka logs nothing, and we could not explain a failed start. The tools
    // that write clicks need nothing beside the broker's jars; the others need Kafka Connect, which is large.
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>clicktally</groupId><artifactId>embedded-kafka</artifactId>\
         <version>1</version><packaging>pom</packaging><dependencies>\
         <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>\
         <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA_VERSION}</version>\
         <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>\
         <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J_VERSION}</version></dependency>\
         </dependencies></project>"
    )
}

fn need(program: &str, probe: &str, remedy: &'static str) -> Result<(), EmbeddedError> {
    match Command::new(program).arg(probe).output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(EmbeddedError::Missing { program: program.to_owned(), remedy }),
    }
}
