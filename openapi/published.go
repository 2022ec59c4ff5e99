package openapi

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Published is a document as it is served, in a form that generators of clients can work with. It has no anchors and aliases, which
// keep the hand-written form short but which readers of YAML by way of Jackson do not follow. And where a form has a field of the
// same name as a parameter of its path (the new name of a zone), the path's is called path_NAME: generators make one argument of
// both otherwise. The names of path parameters are not on the wire. Bodies that may be JSON are JSON first, with a title: many
// generators take the first kind that they find, and lists in forms are beyond most of them.
func Published(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	if err := expand(&root, 0); err != nil {
		return nil, err
	}
	if paths := value(root.Content[0], "paths"); paths != nil {
		for i := 0; i+1 < len(paths.Content); i += 2 {
			separate(paths.Content[i], paths.Content[i+1])
			for _, operation := range paths.Content[i+1].Content {
				preferJSON(operation)
			}
		}
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&root); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// value is the value of a key of a mapping, nil when there is none.
func value(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// separate renames the parameters of a path that share their name with a field of a body.
func separate(path, item *yaml.Node) {
	fields := map[string]bool{}
	for _, operation := range item.Content {
		content := value(value(operation, "requestBody"), "content")
		if content == nil {
			continue
		}
		for _, media := range content.Content {
			if properties := value(value(media, "schema"), "properties"); properties != nil {
				for i := 0; i < len(properties.Content); i += 2 {
					fields[properties.Content[i].Value] = true
				}
			}
		}
	}
	rename := func(parameters *yaml.Node) {
		if parameters == nil {
			return
		}
		for _, p := range parameters.Content {
			if name, where := value(p, "name"), value(p, "in"); name != nil && where != nil && where.Value == "path" && fields[name.Value] {
				path.Value = strings.ReplaceAll(path.Value, "{"+name.Value+"}", "{path_"+name.Value+"}")
				name.Value = "path_" + name.Value
			}
		}
	}
	rename(value(item, "parameters"))
	for _, operation := range item.Content {
		rename(value(operation, "parameters"))
	}
}

// preferJSON puts the JSON form of an operation's body first, and names it after the operation.
func preferJSON(operation *yaml.Node) {
	const kind = "application/json"
	id, content := value(operation, "operationId"), value(value(operation, "requestBody"), "content")
	schema := value(value(content, kind), "schema")
	if id == nil || schema == nil || value(schema, "$ref") != nil {
		return
	}
	for i := 0; i < len(content.Content); i += 2 {
		if content.Content[i].Value == kind {
			pair := []*yaml.Node{content.Content[i], content.Content[i+1]}
			content.Content = append(pair, append(content.Content[:i:i], content.Content[i+2:]...)...)
		}
	}
	if value(schema, "title") == nil {
		title := strings.NewReplacer(".", " ", "_", " ", "-", " ").Replace(id.Value) + " body"
		schema.Content = append(schema.Content, text("title"), text(title))
	}
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// deepest is a bound on nesting: an alias that holds itself would have no end.
const deepest = 100

func expand(n *yaml.Node, depth int) error {
	if depth > deepest {
		return fmt.Errorf("line %d: nested too deeply", n.Line)
	}
	for n.Kind == yaml.AliasNode {
		*n = *n.Alias
	}
	n.Anchor = ""
	// A node that stands in two places has its parts copied, lest clearing one changes the other's.
	parts := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		part := *c
		if err := expand(&part, depth+1); err != nil {
			return err
		}
		parts[i] = &part
	}
	n.Content = parts
	return nil
}
