//! A model's configuration: which layers there are, of which class, in which order. It is data: a `Lambda`
//! layer's code in it is a string like any other.

use std::collections::HashMap;

use serde_json::Value;

/// The longest configuration that is parsed. Those of the largest published models have under 1 MiB.
const LONGEST: usize = 16 << 20;

/// A layer of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layer {
    pub(super) name: String,
    /// `Conv2D`, ...; of a wrapper the class of the wrapped layer.
    pub(super) class: String,
    pub(super) groups: Option<usize>,
    /// How many nodes of the graph call the layer.
    pub(super) uses: usize,
    /// Layers of a nested model, in order.
    pub(super) layers: Vec<Layer>,
}

/// Parses a configuration; the outermost layer is the model.
///
/// # Errors
/// What is no JSON, or none of a model.
pub(super) fn parse(text: &str) -> Result<Layer, String> {
    if text.len() > LONGEST {
        return Err(format!("a configuration of {} bytes, expected at most {LONGEST}", text.len()));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("the configuration is no JSON: {e}"))?;
    layer(&value).ok_or_else(|| "the configuration names no class".to_owned())
}

/// All layers within `model` by name; of equal names the first.
pub(super) fn by_name(model: &Layer) -> HashMap<&str, &Layer> {
    let mut names = HashMap::new();
    let mut pending = vec![model];
    while let Some(layer) = pending.pop() {
        names.entry(layer.name.as_str()).or_insert(layer);
        pending.extend(layer.layers.iter().rev());
    }
    names
}

/// `None` for a value without a class. The recursion is as deep as the JSON, which `serde_json` bounds.
fn layer(value: &Value) -> Option<Layer> {
    let class = value.get("class_name")?.as_str()?;
    let config = value.get("config")?;
    let name = value.get("name").or_else(|| config.get("name")).and_then(Value::as_str).unwrap_or_default();
    let uses = value.get("inbound_nodes").and_then(Value::as_array).map_or(1, |nodes| nodes.len().max(1));
    if let Some(wrapped) = config.get("layer").and_then(layer) {
        return Some(Layer { name: name.to_owned(), uses, ..wrapped });
    }
    // Keras 1 and early 2 wrote a Sequential's layers as the configuration itself.
    let layers = config.get("layers").unwrap_or(config).as_array();
    let groups = config.get("groups").and_then(Value::as_u64).and_then(|groups| usize::try_from(groups).ok());
    Some(Layer {
        name: name.to_owned(),
        class: class.to_owned(),
        groups: groups.filter(|&groups| groups > 0),
        uses,
        layers: layers.into_iter().flatten().filter_map(layer).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_models_and_wrappers() {
        let model = parse(
            r#"{"class_name": "Functional", "config": {"name": "m", "layers": [
                {"class_name": "Conv2D", "name": "a", "config": {"name": "a", "groups": 2}, "inbound_nodes": [[], []]},
                {"class_name": "TimeDistributed", "config": {"name": "t", "layer":
                    {"class_name": "Conv2D", "config": {"name": "inner", "groups": 1}}}},
                {"class_name": "Sequential", "config": [
                    {"class_name": "Conv2DTranspose", "config": {"name": "up"}}]},
                {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAAA=", null, null]}}]}}"#,
        )
        .unwrap();
        let names = by_name(&model);
        assert_eq!((names["a"].class.as_str(), names["a"].groups, names["a"].uses), ("Conv2D", Some(2), 2));
        assert_eq!((names["t"].class.as_str(), names["t"].groups), ("Conv2D", Some(1)));
        assert_eq!(names["up"].class, "Conv2DTranspose");
        assert_eq!(names["l"].class, "Lambda");
        assert!(!names.contains_key("inner"));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(parse("{").is_err());
        assert!(parse("[1]").is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
