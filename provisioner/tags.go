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
		if why := definitionProblem(definition); why != "" {
			f.add("definition", "Invalid xpath expression: %s", why)
		}
	}
	if len(f) > 0 {
		return f.err()
	}
	t.Definition = definition
	return nil
}

// kernelOptsPattern keeps what ends in a boot file to one line of printable text.
var kernelOptsPattern = regexp.MustCompile(`^[[:print:]]*$`)

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
		if err := taken("Tag", "name", "Name", tx.InsertTag(&t)); err != nil || t.Definition == "" {
			return err
		}
		return s.enqueueTag(tx, &t)
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
		opts, definition := t.KernelOpts, t.Definition
		if err := in.apply(&t); err != nil {
			return err
		}
		if err := tx.UpdateTag(&t); err != nil {
			return taken("Tag", "name", "Name", err)
		}
		if t.Definition != "" && t.Definition != definition {
			if err := s.enqueueTag(tx, &t); err != nil {
				return err
			}
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

// RebuildTag has a tag's definition evaluated again, by a job. A tag without one keeps its machines.
func (s *Service) RebuildTag(ctx context.Context, name string) (t storage.Tag, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return t, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if t, err = tx.TagByName(name); err != nil {
			return found("Tag", err)
		}
		if t.Definition == "" {
			return nil
		}
		return s.enqueueTag(tx, &t)
	})
	return t, err
}
