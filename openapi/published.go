package openapi

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Published is a document as it is served: without YAML's anchors and aliases, which keep the hand-written form short but which a
// good part of the generators in use (all that read YAML by Jackson) do not follow.
func Published(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	if err := expand(&root, 0); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&root); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

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
