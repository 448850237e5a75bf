//! kubectl's verbs on every kind that the server has.
//!
//! The kinds come from discovery, so that none is left out: one without a row in [`samples`] fails the test. Each
//! verb is one call for all objects at once, which keeps it to a minute; a failure names the objects that the
//! answer misses. Kinds that are only asked (reviews) are created, kinds that are only shown are listed.

mod discovery;
mod samples;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Cluster, Namespace, eventually};

use discovery::Resource;
use samples::{SAMPLES, Sample};

/// How many kubectl run at once where each kind takes one of its own.
const WORKERS: usize = 4;

#[test]
fn every_kind_takes_every_verb() -> Result<()> {
    let ns = Cluster::running().namespace("kinds")?;
    let kubectl = Kubectl::new(ns)?;
    let definition = kubectl.file("definition", samples::WIDGETS)?;
    let bound = kubectl.file("bound", samples::BOUND)?;
    let _definition = Made { kubectl: &kubectl, file: definition.clone() };
    kubectl.run(&["create", "-f", &definition, "-f", &bound])?;
    kubectl.run(&["wait", "--for=condition=Established", "-f", &definition, "--timeout=30s"])?;
    let resources = eventually("the custom kind in discovery", Duration::from_secs(5), || {
        let resources = discovery::resources(&kubectl)?;
        ensure!(resources.iter().any(|r| r.kind == "Widget"), "no Widget");
        Ok(resources)
    })?;
    names_and_lists(&kubectl, &resources)?;
    explained(&kubectl, &resources)?;
    asked(&kubectl, &resources)?;
    let objects = objects(&kubectl, &resources)?;
    let walk = Walk::new(&kubectl, objects)?;
    walk.created_and_shown()?;
    walk.found_by_every_name(&resources)?;
    walk.changed()?;
    walk.applied()?;
    walk.deleted_and_made_again()
}

/// `kubectl` in the test's namespace, with a configuration and a discovery cache of its own.
struct Kubectl {
    ns: Namespace,
    folder: PathBuf,
}

impl Kubectl {
    fn new(ns: Namespace) -> Result<Self> {
        let folder = std::env::temp_dir().join(&ns.name);
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(ns.cluster.kubeconfig(), folder.join("config"))?;
        Ok(Self { ns, folder })
    }

    /// A file in the test's folder; its path.
    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name).with_extension("yaml");
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.folder.join("config"));
        command.arg("--cache-dir").arg(self.folder.join("cache"));
        command.args(["-n", &self.ns.name]).args(args).stdin(std::process::Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().context("running kubectl")
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        said(args, &self.output(args)?)
    }

    fn raw(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["get", "--raw", path])?)?)
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn said(args: &[&str], output: &Output) -> Result<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "kubectl {}: {}\n{out}{err}", args.join(" "), output.status);
    Ok(out.into_owned())
}

/// What is in a file is deleted in the end, whatever happened.
struct Made<'k> {
    kubectl: &'k Kubectl,
    file: String,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if std::env::var_os("PINTLE_KEEP").is_none() {
            let forget = ["delete", "-f", &self.file, "--ignore-not-found", "--wait=false", "--force"];
            drop(self.kubectl.output(&forget));
        }
    }
}

/// `api-resources` and `api-versions` show what discovery has.
fn names_and_lists(kubectl: &Kubectl, resources: &[Resource]) -> Result<()> {
    let shown: BTreeSet<String> = lines(&kubectl.run(&["api-versions"])?);
    for version in discovery::versions(resources) {
        ensure!(shown.contains(&version), "api-versions does not show {version}");
    }
    for namespaced in [true, false] {
        let flag = format!("--namespaced={namespaced}");
        let shown = lines(&kubectl.run(&["api-resources", "--verbs=list,create", "-o", "name", &flag])?);
        for resource in resources.iter().filter(|r| r.preferred && r.can("list") && r.can("create")) {
            let is_there = shown.contains(&resource.qualified());
            ensure!(is_there == (resource.namespaced == namespaced), "api-resources {flag}: {resource:?}");
        }
    }
    let wide = kubectl.run(&["api-resources", "-o", "wide"])?;
    for resource in resources.iter().filter(|r| r.preferred) {
        let line = wide.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(&resource.plural)
                && line.split_whitespace().any(|w| w == resource.api_version())
                && line.split_whitespace().any(|w| w == resource.kind)
        });
        let line = line.with_context(|| format!("api-resources does not show {}", resource.full()))?;
        for wanted in
            [resource.verbs.join(","), resource.short_names.join(","), resource.categories.join(",")]
        {
            ensure!(line.contains(&wanted), "no {wanted}: {line}");
        }
    }
    Ok(())
}

/// `explain` describes every kind and its fields, in every version.
fn explained(kubectl: &Kubectl, resources: &[Resource]) -> Result<()> {
    let share = resources.len().div_ceil(WORKERS);
    std::thread::scope(|scope| {
        let parts: Vec<_> = resources
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().try_for_each(|resource| explain(kubectl, resource))))
            .collect();
        parts.into_iter().try_for_each(|part| part.join().expect("explaining does not panic"))
    })
}

fn explain(kubectl: &Kubectl, resource: &Resource) -> Result<()> {
    let version = format!("--api-version={}", resource.api_version());
    let text = kubectl.run(&["explain", "--recursive", &resource.plural, &version])?;
    for wanted in [format!("KIND:       {}", resource.kind), format!("VERSION:    {}", resource.version)] {
        ensure!(text.contains(&wanted), "explain {} {version} has no {wanted}: {text}", resource.plural);
    }
    let described =
        text.split("DESCRIPTION:").nth(1).is_some_and(|rest| !rest.trim_start().starts_with("<empty>"));
    ensure!(described, "explain {} {version} describes nothing: {text}", resource.plural);
    ensure!(text.contains("\n  metadata\t<ObjectMeta>"), "{} has no metadata: {text}", resource.plural);
    ensure!(text.contains("\n    managedFields\t<[]ManagedFieldsEntry>"), "not recursive: {text}");
    Ok(())
}

/// Kinds that are only created, for an answer, and those that are only shown.
fn asked(kubectl: &Kubectl, resources: &[Resource]) -> Result<()> {
    for resource in resources.iter().filter(|r| !r.can("get")) {
        let sample = sample(resource)?;
        let metadata = sample.name.map_or_else(String::new, |name| format!("metadata: {{name: {name}}}\n"));
        let text = document(kubectl, sample, &metadata);
        let file = kubectl.file("asked", &text)?;
        let args = ["create", "-f", &file, "-o", "json"];
        let answer: Value = serde_json::from_str(&kubectl.run(&args)?)?;
        let kind = if sample.kind == "Binding" { "Status" } else { sample.kind };
        ensure!(answer["kind"] == kind, "the answer to {}: {answer}", sample.kind);
        ensure!(
            sample.kind == "Binding" || answer["status"].is_object(),
            "{} is not answered: {answer}",
            sample.kind
        );
    }
    kubectl.run(&["delete", "pod", "bound", "--force", "--grace-period=0"])?;
    for resource in resources.iter().filter(|r| !r.can("create")) {
        let shown = kubectl.run(&["get", &resource.full()])?;
        ensure!(shown.lines().count() > 1, "nothing to show of {}: {shown}", resource.plural);
    }
    Ok(())
}

fn sample(resource: &Resource) -> Result<&'static Sample> {
    let version = resource.api_version();
    let found = SAMPLES.iter().find(|s| s.api_version == version && s.kind == resource.kind);
    found.with_context(|| format!("no sample of {version} {}: add one to kinds/samples.rs", resource.kind))
}

/// A sample's text with `metadata` as its metadata.
fn document(kubectl: &Kubectl, sample: &Sample, metadata: &str) -> String {
    let fields = sample.fields.replace("$PODS", samples::PODS).replace("$ONCE", samples::ONCE);
    let fields = fields.replace("$NS", &kubectl.ns.name);
    format!("apiVersion: {}\nkind: {}\n{metadata}{fields}\n", sample.api_version, sample.kind)
}

/// A kind's object.
struct Kept {
    name: String,
    resource: Resource,
    sample: &'static Sample,
}

/// An object of each kind that can be created and read.
fn objects(kubectl: &Kubectl, resources: &[Resource]) -> Result<Vec<Kept>> {
    let kept = resources.iter().filter(|r| r.can("create") && r.can("get"));
    kept.map(|resource| {
        let sample = sample(resource)?;
        let of = resource.full().replace('.', "-");
        let made = || format!("{}-{of}", kubectl.ns.name).trim_end_matches('-').to_owned();
        let name = sample.name.map_or_else(made, str::to_owned);
        Ok(Kept { name, resource: resource.clone(), sample })
    })
    .collect()
}

/// Some kubectl describe a kind through its beta version alone, which is off by default: 1.32 addresses, their ranges
/// and classes of volume attributes.
fn is_describable(object: &Kept, all: &[Kept]) -> bool {
    let beta = match object.sample.kind {
        "IPAddress" | "ServiceCIDR" => "networking.k8s.io/v1beta1",
        "VolumeAttributesClass" => "storage.k8s.io/v1beta1",
        _ => return true,
    };
    all.iter().any(|o| o.resource.api_version() == beta)
}

/// The manifests of all objects, and what kubectl says of them.
struct Walk<'k> {
    kubectl: &'k Kubectl,
    objects: Vec<Kept>,
    /// As they are made.
    first: String,
    /// With another label.
    second: String,
    /// The built-in ones alone: a strategic merge patch needs their types.
    builtin: String,
    /// Those that this kubectl can describe.
    described: String,
    _made: Made<'k>,
}

impl<'k> Walk<'k> {
    fn new(kubectl: &'k Kubectl, objects: Vec<Kept>) -> Result<Self> {
        let all = |step: &str, wanted: &dyn Fn(&Kept) -> bool| {
            let metadata = |name: &str| {
                format!(
                    "metadata: {{name: {name}, labels: {{kinds-step: {step}}}, annotations: {{kinds-note: before}}}}\n"
                )
            };
            let wanted = objects.iter().filter(|o| wanted(o));
            let documents: Vec<String> =
                wanted.map(|o| document(kubectl, o.sample, &metadata(&o.name))).collect();
            documents.join("---\n")
        };
        let first = kubectl.file("first", &all("first", &|_| true))?;
        let second = kubectl.file("second", &all("second", &|_| true))?;
        let builtin = kubectl.file("builtin", &all("first", &|o| o.resource.group != samples::GROUP))?;
        let described = kubectl.file("described", &all("first", &|o| is_describable(o, &objects)))?;
        let made = Made { kubectl, file: first.clone() };
        Ok(Self { kubectl, objects, first, second, builtin, described, _made: made })
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args)
    }

    /// Runs it, and finds `deployment.apps/NAME` and then `word` for every object.
    fn says(&self, word: &str, args: &[&str]) -> Result<()> {
        let text = self.run(args)?;
        let lines = lines(&text);
        let missing = self.objects.iter().filter(|o| {
            let resource = Resource { plural: o.resource.singular.clone(), ..o.resource.clone() };
            let reference = format!("{}/{}", resource.qualified(), o.name);
            !lines.contains(format!("{reference} {word}").trim_end())
        });
        self.none(missing, args, &text)
    }

    /// Runs it, and finds every object's name as a word.
    fn names(&self, args: &[&str]) -> Result<String> {
        let text = self.run(args)?;
        self.none(self.objects.iter().filter(|o| !has_word(&text, &o.name)), args, &text)?;
        Ok(text)
    }

    fn none<'o>(&self, missing: impl Iterator<Item = &'o Kept>, args: &[&str], text: &str) -> Result<()> {
        let missing: Vec<String> = missing.map(|o| format!("{}/{}", o.resource.full(), o.name)).collect();
        ensure!(missing.is_empty(), "kubectl {}: not so of {}\n{text}", args.join(" "), missing.join(" "));
        Ok(())
    }

    fn created_and_shown(&self) -> Result<()> {
        let of = ["-f", &self.first];
        self.says("created", &["create", "--save-config", "-f", &self.first])?;
        self.says("", &["get", "-f", &self.first, "-o", "name"])?;
        for output in [&[][..], &["-o", "wide"]] {
            let args = [&["get", "-f", &self.first][..], output].concat();
            let tables = self.run(&args)?;
            // Events are shown by what they are about.
            let named = self.objects.iter().filter(|o| o.sample.kind != "Event");
            self.none(named.filter(|o| !has_word(&tables, &o.name)), &args, &tables)?;
            ensure!(tables.contains("pod/none"), "events: {tables}");
        }
        self.names(&["get", "-f", &self.first, "-o", "jsonpath={.items[*].metadata.name}"])?;
        let columns = "custom-columns=NAME:.metadata.name,STEP:.metadata.labels.kinds-step,KIND:.kind";
        let table = self.names(&["get", "-f", &self.first, "--no-headers", "-o", columns])?;
        ensure!(table.lines().count() == self.objects.len(), "a line for each: {table}");
        ensure!(table.lines().all(|l| l.split_whitespace().nth(1) == Some("first")), "labels: {table}");
        let yaml = self.names(&["get", of[0], of[1], "-o", "yaml"])?;
        for key in ["uid", "resourceVersion", "creationTimestamp"] {
            let count = yaml.matches(&format!("\n    {key}: ")).count();
            ensure!(count == self.objects.len(), "{count} of {} have a {key}", self.objects.len());
        }
        let json = self.run(&["get", of[0], of[1], "-o", "json", "--show-managed-fields"])?;
        let json: Value = serde_json::from_str(&json)?;
        let items = json["items"].as_array().context("a list")?;
        for (object, item) in self.objects.iter().zip(items) {
            ensure!(item["kind"] == object.resource.kind, "in the order asked for: {item}");
            ensure!(item["apiVersion"] == object.resource.api_version(), "the version asked for: {item}");
            let owners = item["metadata"]["managedFields"].as_array().context("owners")?;
            ensure!(
                owners.iter().any(|o| o["manager"] == "kubectl-create"),
                "who made it is an owner: {item}"
            );
        }
        let args = ["describe", "-f", &self.described];
        let text = self.run(&args)?;
        let described = self.objects.iter().filter(|o| is_describable(o, &self.objects));
        self.none(described.filter(|o| !has_word(&text, &o.name)), &args, &text)?;
        self.says("condition met", &["wait", "--for=jsonpath={.metadata.uid}", of[0], of[1], "--timeout=60s"])
    }

    /// By plural, version and group, by short name, by singular, by category.
    fn found_by_every_name(&self, resources: &[Resource]) -> Result<()> {
        let list = |of: &dyn Fn(&Resource) -> Vec<String>| {
            let names: BTreeSet<String> = self
                .objects
                .iter()
                .filter(|o| o.resource.can("list"))
                .flat_map(|o| of(&o.resource))
                .collect();
            names.into_iter().collect::<Vec<_>>().join(",")
        };
        let full = list(&|r| vec![r.full()]);
        self.names(&["get", &full, "-l", "kinds-step=first", "-o", "name"])?;
        let short = list(&|r| r.short_names.clone());
        let found = self.run(&["get", &short, "-l", "kinds-step=first", "-o", "name"])?;
        let all: BTreeSet<&str> = found.split(['/', '\n']).collect();
        let named =
            self.objects.iter().filter(|o| !o.resource.short_names.is_empty() && o.resource.preferred);
        self.none(named.filter(|o| !all.contains(o.name.as_str())), &["get", &short], &found)?;
        let categories: BTreeSet<&String> = resources.iter().flat_map(|r| &r.categories).collect();
        for category in categories {
            let found = self.run(&["get", category, "-l", "kinds-step=first", "-o", "name"])?;
            let all: BTreeSet<&str> = found.split(['/', '\n']).collect();
            let of = |o: &&Kept| o.resource.categories.contains(category) && o.resource.preferred;
            let missing = self.objects.iter().filter(of).filter(|o| !all.contains(o.name.as_str()));
            self.none(missing, &["get", category], &found)?;
        }
        let one = self.objects.iter().filter(|o| o.resource.preferred && o.resource.group.is_empty());
        for object in one {
            let (singular, kind) = (&object.resource.singular, &object.resource.kind);
            self.run(&[
                "get",
                &format!("{singular}/{}", object.name),
                &format!("{kind}/{}", object.name),
                "-o",
                "name",
            ])?;
        }
        Ok(())
    }

    fn changed(&self) -> Result<()> {
        let of = &self.first;
        self.says("labeled", &["label", "-f", of, "kinds-label=set"])?;
        self.says("unlabeled", &["label", "-f", of, "kinds-label-"])?;
        self.says("annotated", &["annotate", "-f", of, "kinds-annotation=set"])?;
        let merge = r#"{"metadata":{"annotations":{"kinds-merge":"set","kinds-annotation":null}}}"#;
        self.says("patched", &["patch", "-f", of, "--type=merge", "-p", merge])?;
        let json = r#"[{"op":"add","path":"/metadata/annotations/kinds-json","value":"set"}]"#;
        self.says("patched", &["patch", "-f", of, "--type=json", "-p", json])?;
        let strategic = r#"{"metadata":{"annotations":{"kinds-strategic":"set"}}}"#;
        let patched = self.run(&["patch", "-f", &self.builtin, "-p", strategic])?;
        let count = patched.lines().filter(|l| l.ends_with(" patched")).count();
        ensure!(count + 1 == self.objects.len(), "all but the custom kind: {patched}");
        let args = ["edit", "-f", of];
        let editor = "sed -i s/kinds-note:\\ before/kinds-note:\\ after/";
        let edited = said(&args, &self.kubectl.command(&args).env("KUBE_EDITOR", editor).output()?)?;
        self.none(self.objects.iter().filter(|o| !has_word(&edited, &o.name)), &args, &edited)?;
        let notes = "custom-columns=A:.metadata.annotations.kinds-note,B:.metadata.annotations.kinds-annotation,C:.metadata.annotations.kinds-merge,D:.metadata.annotations.kinds-json";
        let shown = self.run(&["get", "-f", of, "--no-headers", "-o", notes])?;
        let wrong = self
            .objects
            .iter()
            .zip(shown.lines())
            .filter(|(_, line)| !line.split_whitespace().eq(["after", "<none>", "set", "set"]));
        self.none(wrong.map(|(o, _)| o), &["get"], &shown)
    }

    /// Client-side and server-side, again without a change, with one, and what `diff` says before and after.
    fn applied(&self) -> Result<()> {
        self.says("configured", &["apply", "-f", &self.first])?;
        self.says("unchanged", &["apply", "-f", &self.first])?;
        let args = ["diff", "-f", &self.second];
        let output = self.kubectl.output(&args)?;
        ensure!(output.status.code() == Some(1), "there are differences: {output:?}");
        let shown = String::from_utf8_lossy(&output.stdout);
        let count = shown.matches("+    kinds-step: second").count();
        ensure!(count == self.objects.len(), "{count} of {} differ: {shown}", self.objects.len());
        self.says("configured", &["apply", "-f", &self.second])?;
        self.says("serverside-applied", &["apply", "--server-side", "-f", &self.second])?;
        let args = ["diff", "--server-side", "-f", &self.second];
        let output = self.kubectl.output(&args)?;
        ensure!(output.status.success(), "no differences: {}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    fn deleted_and_made_again(&self) -> Result<()> {
        self.gone()?;
        self.says("serverside-applied", &["apply", "--server-side", "-f", &self.first])?;
        self.gone()
    }

    fn gone(&self) -> Result<()> {
        // No controller protects volumes and claims here, so none lets them go either.
        let free = r#"{"metadata":{"finalizers":null}}"#;
        self.run(&["patch", "-f", &self.first, "--type=merge", "-p", free])?;
        let text = self.run(&["delete", "-f", &self.first, "--timeout=60s"])?;
        let count = text.lines().filter(|l| l.contains("\" deleted")).count();
        ensure!(count == self.objects.len(), "{count} of {} are deleted: {text}", self.objects.len());
        let left = self.run(&["get", "-f", &self.first, "--ignore-not-found", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "still there: {left}");
        Ok(())
    }
}

/// Whether `name` stands in the text, not as a part of another name.
fn has_word(text: &str, name: &str) -> bool {
    let apart = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '-' | '.')));
    text.match_indices(name)
        .any(|(at, _)| apart(text[..at].chars().next_back()) && apart(text[at + name.len()..].chars().next()))
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}
