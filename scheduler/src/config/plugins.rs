//! Which plugins a profile enables at a point: the default table, `multiPoint`, and the point's own lists.

use serde::{Deserialize, Serialize};

use super::ProfileConfig;
use crate::framework::{PLUGINS, Point, definition, is_missing};

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginRef {
    pub name: String,
    pub weight: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginSet {
    pub enabled: Vec<PluginRef>,
    pub disabled: Vec<PluginRef>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Plugins {
    pub multi_point: PluginSet,
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
}

impl Plugins {
    fn at(&self, point: Point) -> &PluginSet {
        match point {
            Point::PreEnqueue => &self.pre_enqueue,
            Point::QueueSort => &self.queue_sort,
            Point::PreFilter => &self.pre_filter,
            Point::Filter => &self.filter,
            Point::PostFilter => &self.post_filter,
            Point::PreScore => &self.pre_score,
            Point::Score => &self.score,
            Point::Reserve => &self.reserve,
            Point::Permit => &self.permit,
            Point::PreBind => &self.pre_bind,
            Point::Bind => &self.bind,
            Point::PostBind => &self.post_bind,
        }
    }
}

impl PluginSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|d| d.name == name || d.name == "*")
    }
}

/// Plugins of a profile at a point with their weights, in order: those of the point's own list first, then the
/// multi-point ones, which are the defaults (unless disabled) with those that the profile adds.
///
/// # Errors
/// (point, name) of a plugin nobody knows.
pub fn plugins_at(
    profile: &ProfileConfig,
    point: Point,
) -> Result<Vec<(&'static str, i32)>, (String, String)> {
    let own = profile.plugins.at(point);
    let multi = &profile.plugins.multi_point;
    let mut out: Vec<(&'static str, i32)> = Vec::new();
    for reference in &own.enabled {
        let Some(definition) = definition(&reference.name) else {
            if is_missing(&reference.name) {
                continue;
            }
            return Err((format!("{point:?}"), reference.name.clone()));
        };
        out.push((definition.name, reference.weight.filter(|w| *w != 0).unwrap_or(definition.weight.max(1))));
    }
    let defaults = PLUGINS.iter().filter(|d| !multi.disables(d.name)).map(|d| (d.name, None));
    let mut wide: Vec<(&'static str, Option<i32>)> = defaults.collect();
    for reference in &multi.enabled {
        let Some(definition) = definition(&reference.name) else {
            if is_missing(&reference.name) {
                continue;
            }
            return Err(("multiPoint".into(), reference.name.clone()));
        };
        match wide.iter_mut().find(|(name, _)| *name == definition.name) {
            Some(known) => known.1 = reference.weight,
            None => wide.push((definition.name, reference.weight)),
        }
    }
    for (name, weight) in wide {
        let Some(definition) = definition(name) else { continue };
        let wanted = definition.points.contains(&point) && !own.disables(name);
        if wanted && !out.iter().any(|(known, _)| *known == name) {
            out.push((name, weight.filter(|w| *w != 0).unwrap_or(definition.weight)));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(yaml: &str, point: Point) -> Vec<(&'static str, i32)> {
        let profile: ProfileConfig = serde_saphyr::from_str(yaml).expect("profile");
        plugins_at(&profile, point).expect("plugins")
    }

    #[test]
    fn defaults_have_upstream_weights() {
        let scores = names("schedulerName: a", Point::Score);
        assert!(scores.contains(&("TaintToleration", 3)));
        assert!(scores.contains(&("NodeAffinity", 2)));
        assert!(scores.contains(&("NodeResourcesFit", 1)));
    }

    #[test]
    fn a_star_disables_all_at_a_point_and_enabled_ones_return() {
        let yaml = "plugins: {score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality, weight: 7}]}}";
        assert_eq!(names(yaml, Point::Score), [("ImageLocality", 7)]);
        assert!(!names(yaml, Point::Filter).is_empty());
    }

    #[test]
    fn unknown_plugins_are_refused() {
        let profile: ProfileConfig =
            serde_saphyr::from_str("plugins: {filter: {enabled: [{name: Nope}]}}").expect("profile");
        assert!(plugins_at(&profile, Point::Filter).is_err());
    }
}
