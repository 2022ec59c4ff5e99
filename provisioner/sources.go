package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/storage"
)

// Where images come from: boot sources and what is chosen of each.

// BootSourceInput is what a request says of a boot source: nil leaves a field as it is.
type BootSourceInput struct {
	Name, URL, KeyringFilename *string
	KeyringData                []byte // nil: as it is
	Priority                   *int64
	Enabled, SkipVerification  *bool
}

// maxKeyring bounds an uploaded keyring; Ubuntu's has some kilobytes.
const maxKeyring = 1 << 20

// webURL tells whether a text is a URL of one of the schemes, with a host and without a password or a fragment.
func webURL(text string, schemes ...string) bool {
	if len(text) > 2048 || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return false
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Fragment != "" {
		return false
	}
	for _, s := range schemes {
		if u.Scheme == s {
			return true
		}
	}
	return false
}

func (in BootSourceInput) apply(b *storage.BootSource, mirrorDirs []string) error {
	f := form{}
	b.URL = strings.TrimSpace(deref(in.URL, b.URL)) // as typed: Terraform compares it with what it sent
	b.Name = strings.TrimSpace(deref(in.Name, b.Name))
	if b.Name == "" {
		b.Name = b.URL
	}
	b.Priority = deref(in.Priority, b.Priority)
	b.Enabled = deref(in.Enabled, b.Enabled)
	b.SkipKeyringVerification = deref(in.SkipVerification, b.SkipKeyringVerification)
	file, data := deref(in.KeyringFilename, b.KeyringFilename), b.KeyringData
	if in.KeyringData != nil {
		data = in.KeyringData
	}
	// Who gives one of the two takes the other away, unless both are given.
	gaveFile, gaveData := deref(in.KeyringFilename, "") != "", len(in.KeyringData) > 0
	if gaveFile && !gaveData {
		data = nil
	} else if gaveData && !gaveFile {
		file = ""
	}
	b.KeyringFilename, b.KeyringData = file, data
	switch {
	case b.URL == "":
		f.add("url", msgRequired)
	case strings.HasPrefix(b.URL, "file:"):
		if _, err := fileMirrorPath(b.URL, mirrorDirs); err != nil {
			f.add("url", "%s", err)
		}
	case !webURL(b.URL, "http", "https"):
		f.add("url", "Enter a valid URL.")
	}
	f.text("name", b.Name, 2048, nil)
	if b.Priority < 0 {
		f.add("priority", "Ensure this value is greater than or equal to 0.")
	}
	if file != "" && (len(file) > 4096 || !strings.HasPrefix(file, "/") || !utf8.ValidString(file) || strings.ContainsFunc(file, unicode.IsControl)) {
		f.add("keyring_filename", msgInvalid)
	}
	if len(data) > maxKeyring {
		f.add("keyring_data", "Ensure this file has at most %d bytes (it has %d).", maxKeyring, len(data))
	}
	switch {
	case file != "" && len(data) > 0:
		f.add("__all__", "Only one of keyring_filename or keyring_data can be specified.")
	case file == "" && len(data) == 0 && !b.SkipKeyringVerification:
		f.add("__all__", "One of keyring_data or keyring_filename must be specified.")
	}
	return f.err()
}

// BootSources lists the sources by id.
func (s *Service) BootSources(ctx context.Context) (out []storage.BootSource, err error) {
	if _, err := needPermission(ctx, "can_view_boot_entities"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { out, err = tx.BootSources(); return err })
	return out, err
}

// BootSource reads a source.
func (s *Service) BootSource(ctx context.Context, id int64) (b storage.BootSource, err error) {
	if _, err := needPermission(ctx, "can_view_boot_entities"); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { b, err = tx.BootSource(id); return found("BootSource", err) })
	return b, err
}

// saveSource writes a source whose name, URL and priority nobody else has.
func saveSource(tx *storage.Tx, b *storage.BootSource) error {
	all, err := tx.BootSources()
	if err != nil {
		return err
	}
	f := form{}
	for _, o := range all {
		if o.ID == b.ID {
			continue
		}
		for _, x := range []struct {
			field, label string
			same         bool
		}{{"url", "Url", strings.TrimRight(o.URL, "/") == strings.TrimRight(b.URL, "/")}, {"name", "Name", o.Name == b.Name}, {"priority", "Priority", o.Priority == b.Priority}} {
			if x.same {
				f[x.field] = []string{fmt.Sprintf("Boot source with this %s already exists.", x.label)}
			}
		}
	}
	if len(f) > 0 {
		return f.err()
	}
	if b.ID == 0 {
		return tx.InsertBootSource(b)
	}
	return tx.UpdateBootSource(b)
}

// CreateBootSource adds a source. Without a priority it goes before all others.
func (s *Service) CreateBootSource(ctx context.Context, in BootSourceInput) (b storage.BootSource, err error) {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return b, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		all, err := tx.BootSources()
		if err != nil {
			return err
		}
		b = storage.BootSource{Enabled: true}
		for _, o := range all {
			b.Priority = max(b.Priority, o.Priority+1)
		}
		if err := in.apply(&b, s.Images.MirrorDirs); err != nil {
			return err
		}
		if err := saveSource(tx, &b); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Created boot source %s", b.URL)
	})
	return b, err
}

// UpdateBootSource changes a source.
func (s *Service) UpdateBootSource(ctx context.Context, id int64, in BootSourceInput) (b storage.BootSource, err error) {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return b, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if b, err = tx.BootSource(id); err != nil {
			return found("BootSource", err)
		}
		if err := in.apply(&b, s.Images.MirrorDirs); err != nil {
			return err
		}
		if err := saveSource(tx, &b); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Updated boot source %s", b.URL)
	})
	return b, err
}

// DeleteBootSource removes a source with its selections, and the images that no other source's selection wants.
func (s *Service) DeleteBootSource(ctx context.Context, id int64) error {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		b, err := tx.BootSource(id)
		if err != nil {
			return found("BootSource", err)
		}
		if err := tx.DeleteBootSource(id); err != nil {
			return err
		}
		if err := dropUnselected(tx); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Deleted boot source %s", b.URL)
	})
}

// SelectionInput is what a request says of a selection: nil leaves a field as it is.
type SelectionInput struct {
	OS, Release               *string
	Arches, Subarches, Labels []string
}

var selectionWord = regexp.MustCompile(`^[a-zA-Z0-9*][a-zA-Z0-9*._+-]{0,254}$`)

func (in SelectionInput) apply(x *storage.BootSourceSelection) error {
	f := form{}
	x.OS, x.Release = deref(in.OS, x.OS), deref(in.Release, x.Release)
	f.text("os", x.OS, 20, selectionWord)
	f.text("release", x.Release, 20, selectionWord)
	if x.Release == "" {
		f.add("release", msgRequired)
	}
	for _, l := range []struct {
		field string
		sent  []string
		kept  *[]string
	}{{"arches", in.Arches, &x.Arches}, {"subarches", in.Subarches, &x.Subarches}, {"labels", in.Labels, &x.Labels}} {
		if l.sent == nil {
			continue
		}
		*l.kept = []string{}
		for _, v := range l.sent {
			if v == "" {
				continue
			}
			if !selectionWord.MatchString(v) {
				f.add(l.field, msgInvalid)
				break
			}
			*l.kept = append(*l.kept, v)
		}
	}
	return f.err()
}

func selectionTaken(err error) error {
	if errors.Is(err, storage.ErrConflict) {
		return FieldError("__all__", "Boot source selection with this Boot source, Os and Release already exists.")
	}
	return err
}

// offers reads what the sources were last seen to offer, by source.
func offers(tx *storage.Tx) (map[int64][]imageOffer, error) {
	states, err := tx.BootSourceStates()
	if err != nil {
		return nil, err
	}
	out := map[int64][]imageOffer{}
	for _, st := range states {
		var list []imageOffer
		if err := json.Unmarshal(st.Offers, &list); err != nil {
			return nil, fmt.Errorf("what boot source %d offers: %w", st.SourceID, err)
		}
		out[st.SourceID] = list
	}
	return out, nil
}

// checkOffered refuses a selection that its source has nothing for. A source that was not read yet is believed to have everything.
func (s *Service) checkOffered(tx *storage.Tx, x storage.BootSourceSelection) error {
	all, err := offers(tx)
	if err != nil || len(all[x.SourceID]) == 0 {
		return err
	}
	var arches, subarches, labels []string
	for _, o := range all[x.SourceID] {
		if selects(storage.BootSourceSelection{OS: x.OS, Release: x.Release}, o.OS, o.Release, "", nil, "") {
			arches, subarches, labels = append(arches, o.Arches...), append(subarches, o.Subarches...), append(labels, o.Labels...)
		}
	}
	if len(arches) == 0 {
		return FieldError("os", "OS %s with release %s has no available images for download", x.OS, x.Release)
	}
	f := form{}
	for _, c := range []struct {
		field      string
		want, have []string
	}{{"arches", x.Arches, arches}, {"subarches", x.Subarches, subarches}, {"labels", x.Labels, labels}} {
		for _, w := range c.want {
			if w != "*" && !slices.Contains(c.have, w) {
				f.add(c.field, "No available images to download for %s", w)
			}
		}
	}
	return f.err()
}

// BootSourceSelections lists the selections of a source by id.
func (s *Service) BootSourceSelections(ctx context.Context, source int64) (out []storage.BootSourceSelection, err error) {
	if _, err := needPermission(ctx, "can_view_boot_entities"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if _, err := tx.BootSource(source); err != nil {
			return found("BootSource", err)
		}
		out, err = tx.BootSourceSelections(source)
		return err
	})
	return out, err
}

// BootSourceSelection reads a selection.
func (s *Service) BootSourceSelection(ctx context.Context, source, id int64) (x storage.BootSourceSelection, err error) {
	if _, err := needPermission(ctx, "can_view_boot_entities"); err != nil {
		return x, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		x, err = tx.BootSourceSelection(source, id)
		return found("BootSourceSelection", err)
	})
	return x, err
}

// changeSource runs fn in a transaction for those who may change boot sources, when the source is there.
func (s *Service) changeSource(ctx context.Context, source int64, fn func(tx *storage.Tx, a Actor, b storage.BootSource) error) error {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		b, err := tx.BootSource(source)
		if err != nil {
			return found("BootSource", err)
		}
		return fn(tx, a, b)
	})
}

// CreateBootSourceSelection chooses a release of a source.
func (s *Service) CreateBootSourceSelection(ctx context.Context, source int64, in SelectionInput) (x storage.BootSourceSelection, err error) {
	err = s.changeSource(ctx, source, func(tx *storage.Tx, a Actor, b storage.BootSource) error {
		x = storage.BootSourceSelection{SourceID: source}
		if err := in.apply(&x); err != nil {
			return err
		}
		if err := s.checkOffered(tx, x); err != nil {
			return err
		}
		if err := selectionTaken(tx.InsertBootSourceSelection(&x)); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Created boot source selection for %s/%s arches=%v", x.OS, x.Release, x.Arches)
	})
	return x, err
}

// UpdateBootSourceSelection changes a selection.
func (s *Service) UpdateBootSourceSelection(ctx context.Context, source, id int64, in SelectionInput) (x storage.BootSourceSelection, err error) {
	err = s.changeSource(ctx, source, func(tx *storage.Tx, a Actor, b storage.BootSource) error {
		if x, err = tx.BootSourceSelection(source, id); err != nil {
			return found("BootSourceSelection", err)
		}
		if err := in.apply(&x); err != nil {
			return err
		}
		if err := s.checkOffered(tx, x); err != nil {
			return err
		}
		if err := selectionTaken(tx.UpdateBootSourceSelection(&x)); err != nil {
			return err
		}
		if err := dropUnselected(tx); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Updated boot source selection for %s/%s arches=%v", x.OS, x.Release, x.Arches)
	})
	return x, err
}

// DeleteBootSourceSelection removes a selection and the images that it alone wanted.
func (s *Service) DeleteBootSourceSelection(ctx context.Context, source, id int64) error {
	return s.changeSource(ctx, source, func(tx *storage.Tx, a Actor, b storage.BootSource) error {
		x, err := tx.BootSourceSelection(source, id)
		if err != nil {
			return found("BootSourceSelection", err)
		}
		if err := tx.DeleteBootSourceSelection(x.ID); err != nil {
			return err
		}
		if err := dropUnselected(tx); err != nil {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Deleted boot source selection for %s/%s arches=%v", x.OS, x.Release, x.Arches)
	})
}
