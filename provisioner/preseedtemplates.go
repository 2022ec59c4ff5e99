package provisioner

import (
	"context"

	"github.com/ingot-metal/ingot/provisioner/preseed"
	"github.com/ingot-metal/ingot/storage"
)

// maxPreseedTemplates bounds how many templates there are.
const maxPreseedTemplates = 1000

// PreseedTemplates lists the templates that override preseeds, by name.
func (s *Service) PreseedTemplates(ctx context.Context) (out []storage.PreseedTemplate, err error) {
	if _, err := needPermission(ctx, "can_view_configurations"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { out, err = tx.PreseedTemplates(); return err })
	return out, err
}

// PreseedTemplate reads a template.
func (s *Service) PreseedTemplate(ctx context.Context, name string) (t storage.PreseedTemplate, err error) {
	if _, err := needPermission(ctx, "can_view_configurations"); err != nil {
		return t, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		t, err = tx.PreseedTemplate(name)
		return found("PreseedTemplate", err)
	})
	return t, err
}

// SavePreseedTemplate creates or replaces a template. One that cannot work is refused.
func (s *Service) SavePreseedTemplate(ctx context.Context, name, content string) (t storage.PreseedTemplate, err error) {
	a, err := needPermission(ctx, "can_edit_configurations")
	if err != nil {
		return t, err
	}
	if _, err := preseed.PrefixOf(name); err != nil {
		return t, FieldError("name", "%s.", sentence(err))
	}
	if _, _, err := preseed.Check(name, content); err != nil {
		return t, fieldErr("content", sentence(err)+".")
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		all, err := tx.PreseedTemplates()
		if err != nil {
			return err
		}
		if len(all) >= maxPreseedTemplates {
			return Errorf(Invalid, "There are %d templates: delete some first.", len(all))
		}
		t = storage.PreseedTemplate{Name: name, Content: content}
		if err := tx.SavePreseedTemplate(&t); err != nil {
			return err
		}
		return s.audit(tx, a, "SETTINGS", "Saved preseed template '%s'.", name)
	})
	return t, err
}

// DeletePreseedTemplate removes a template.
func (s *Service) DeletePreseedTemplate(ctx context.Context, name string) error {
	a, err := needPermission(ctx, "can_edit_configurations")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.DeletePreseedTemplate(name); err != nil {
			return found("PreseedTemplate", err)
		}
		return s.audit(tx, a, "SETTINGS", "Deleted preseed template '%s'.", name)
	})
}

// TryPreseedTemplate renders a text as the template of a name: for a machine, or for one that does not exist.
func (s *Service) TryPreseedTemplate(ctx context.Context, name, content, systemID, distroSeries string) (d PreseedDocument, err error) {
	if _, err := needPermission(ctx, "can_edit_configurations"); err != nil {
		return d, err
	}
	prefix, err := preseed.PrefixOf(name)
	if err != nil {
		return d, FieldError("name", "%s.", sentence(err))
	}
	d = PreseedDocument{Prefix: prefix, Template: name}
	if _, d.Content, d.Err = preseed.Check(name, content); d.Err != nil {
		d.Err = Errorf(Invalid, "%s.", sentence(d.Err))
	}
	if systemID == "" || d.Err != nil {
		return d, nil
	}
	if _, ok := preseed.PrefixByName(prefix.Name); !ok { // generic: for a machine it is the commissioning document's
		prefix, _ = preseed.PrefixByName(preseed.PrefixCommissioning)
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		b, err := s.readMachine(ctx, tx, systemID)
		if err != nil {
			return err
		}
		j, err := s.previewJob(ctx, tx, &b.Node, prefix, distroSeries)
		if err != nil {
			return err
		}
		j.name, j.text = name, &content
		d, err = s.renderPreseed(tx, j)
		return err
	})
	return d, err
}

// sentence begins an error's text with a capital letter.
func sentence(err error) string {
	text := err.Error()
	if text != "" && text[0] >= 'a' && text[0] <= 'z' {
		text = string(text[0]-'a'+'A') + text[1:]
	}
	return text
}
