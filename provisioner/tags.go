package provisioner

import (
	"context"
	"regexp"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// TagInput is what a request says of a tag: nil leaves a field as it is.
type TagInput struct {
	Name       *string
	Comment    *string
	Definition *string
	KernelOpts *string
}

// apply checks the fields and sets them.
func (in TagInput) apply(t *storage.Tag) error {
	f := form{}
	t.Name = deref(in.Name, t.Name)
	t.Comment = deref(in.Comment, t.Comment)
	t.KernelOpts = deref(in.KernelOpts, t.KernelOpts)
	if t.Name == "" {
		f.add("name", msgRequired)
	}
	f.text("name", t.Name, 256, tagName)
	f.text("comment", t.Comment, descriptionLimit, nil)
	f.text("kernel_opts", t.KernelOpts, 4096, kernelOptsPattern)
	definition := strings.TrimSpace(deref(in.Definition, t.Definition))
	changed := definition != t.Definition
	if definition != "" && changed {
		if why := badXPath(definition); why != "" {
			f.add("definition", "Invalid xpath expression: %s", why)
		}
	}
	if len(f) > 0 {
		return f.err()
	}
	if definition != "" && changed {
		return Errorf(Unbuilt, "Tags with a definition are not built yet: leave definition empty and choose the machines with op=update_nodes.")
	}
	t.Definition = definition
	return nil
}

// kernelOptsPattern keeps what ends in a boot file to one line of printable text.
var kernelOptsPattern = regexp.MustCompile(`^[[:print:]]*$`)

var xpathAxis = regexp.MustCompile(`([A-Za-z-]+)\s*::`)

// badXPath says what is wrong with an XPath expression on its surface: brackets, quotes, axes. It returns "" when nothing is.
func badXPath(expr string) string {
	var stack []rune
	var quote rune
	for _, r := range expr {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case r == '(':
			stack = append(stack, ')')
		case r == '[':
			stack = append(stack, ']')
		case r == ')' || r == ']':
			if len(stack) == 0 || stack[len(stack)-1] != r {
				return "unbalanced " + string(r)
			}
			stack = stack[:len(stack)-1]
		case r < ' ' && r != '\t' && r != '\n' && r != '\r':
			return "control character"
		}
	}
	if quote != 0 {
		return "unterminated literal"
	}
	if len(stack) > 0 {
		return "missing " + string(stack[len(stack)-1])
	}
	for _, m := range xpathAxis.FindAllStringSubmatch(expr, -1) {
		switch m[1] {
		case "ancestor", "ancestor-or-self", "attribute", "child", "descendant", "descendant-or-self", "following",
			"following-sibling", "namespace", "parent", "preceding", "preceding-sibling", "self":
		default:
			return "unknown axis " + m[1]
		}
	}
	switch expr[len(expr)-1] {
	case '/', '|', '=', '+', '<', '>', '@', ',', ':':
		if expr != "/" {
			return "unfinished"
		}
	}
	return ""
}

// Tags returns all tags by name.
func (s *Service) Tags(ctx context.Context) (out []storage.Tag, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		out, err = tx.Tags()
		return err
	})
	return out, err
}

// Tag returns a tag by name.
func (s *Service) Tag(ctx context.Context, name string) (t storage.Tag, err error) {
	if _, err := needUser(ctx); err != nil {
		return t, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		t, err = tx.TagByName(name)
		return found("Tag", err)
	})
	return t, err
}

// CreateTag makes a tag.
func (s *Service) CreateTag(ctx context.Context, in TagInput) (t storage.Tag, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return t, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		t = storage.Tag{}
		if err := in.apply(&t); err != nil {
			return err
		}
		return taken("Tag", "name", "Name", tx.InsertTag(&t))
	})
	return t, err
}

// UpdateTag changes a tag. New kernel options reach the racks of all its machines.
func (s *Service) UpdateTag(ctx context.Context, name string, in TagInput) (t storage.Tag, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return t, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if t, err = tx.TagByName(name); err != nil {
			return found("Tag", err)
		}
		opts := t.KernelOpts
		if err := in.apply(&t); err != nil {
			return err
		}
		if err := tx.UpdateTag(&t); err != nil {
			return taken("Tag", "name", "Name", err)
		}
		if t.KernelOpts == opts {
			return nil
		}
		return bumpTagged(tx, t.ID)
	})
	return t, err
}

func bumpTagged(tx *storage.Tx, tagID int64) error {
	ids, err := tx.TagNodes(tagID)
	if err != nil {
		return err
	}
	return tx.BumpNodes(ids)
}

// DeleteTag removes a tag from the catalogue and from its machines.
func (s *Service) DeleteTag(ctx context.Context, name string) error {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		t, err := tx.TagByName(name)
		if err != nil {
			return found("Tag", err)
		}
		if t.KernelOpts != "" {
			if err := bumpTagged(tx, t.ID); err != nil {
				return err
			}
		}
		return tx.DeleteTag(t.ID)
	})
}

// UpdateTagNodes gives a tag to nodes and takes it from others, by system_id; unknown ones are passed over. A definition, when
// sent, must be the tag's.
func (s *Service) UpdateTagNodes(ctx context.Context, name string, add, remove []string, definition *string) (added, removed int64, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return 0, 0, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		added, removed = 0, 0
		t, err := tx.TagByName(name)
		if err != nil {
			return found("Tag", err)
		}
		if definition != nil && *definition != "" && *definition != t.Definition {
			return Errorf(Conflict, "Definition supplied '%s' doesn't match current definition '%s'", *definition, t.Definition)
		}
		ids, err := tx.NodeIDs(append(append([]string{}, add...), remove...))
		if err != nil {
			return err
		}
		pick := func(names []string) []int64 {
			var out []int64
			for _, n := range names {
				if id, ok := ids[n]; ok {
					out = append(out, id)
				}
			}
			return out
		}
		in, err := tx.AddNodeTags(t.ID, pick(add))
		if err != nil {
			return err
		}
		out, err := tx.RemoveNodeTags(t.ID, pick(remove))
		if err != nil {
			return err
		}
		added, removed = int64(len(in)), int64(len(out))
		if t.KernelOpts == "" {
			return nil
		}
		return tx.BumpNodes(append(in, out...))
	})
	return added, removed, err
}

// RebuildTag evaluates a tag's definition again. A tag without one keeps its machines.
func (s *Service) RebuildTag(ctx context.Context, name string) (storage.Tag, error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return storage.Tag{}, err
	}
	return s.Tag(ctx, name)
}
