package provisioner

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/provisioner/simplestreams"
	"github.com/ingot-metal/ingot/storage"
)

// The import of images from mirrors is one durable job of the queue "region": of several regions one has its lease, and when that one
// ends in the middle another goes on from what is on the disk. It reads each source's index, writes the versions that are wanted as
// rows that are not complete yet, fetches their files by digest, and drops the version before only when the new one is complete.

const (
	imageSyncJob   = "image-sync"
	imageSyncLease = 30 * time.Second // as the runner's
	// imageSyncTries is how often a region may be lost in the middle of one import.
	imageSyncTries = 50
	// imageImportEvery is how often images are imported by themselves; a changed source or selection makes it sooner.
	imageImportEvery = time.Hour
	// diskReserve is left free on the disk of the content: the database may be on it too.
	diskReserve = 256 << 20
	maxProblems = 20
)

// imageOffer is a release that a source has, in all its forms.
type imageOffer struct {
	OS        string   `json:"os"`
	Release   string   `json:"release"`
	Title     string   `json:"title,omitempty"`
	Arches    []string `json:"arches"`
	Subarches []string `json:"subarches"`
	Labels    []string `json:"labels"`
}

// ImportImages orders an import from all enabled sources. When one is under way already, that is enough.
func (s *Service) ImportImages(ctx context.Context) error {
	if _, err := needPermission(ctx, "can_edit_boot_entities"); err != nil {
		return err
	}
	if s.Content == nil {
		return Errorf(Unavailable, "This region has no content store: start it with a data directory.")
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error { return enqueueImageSync(tx, true) })
}

type imageSyncArgs struct {
	Asked bool `json:"asked"` // by somebody, not by the clock
}

func enqueueImageSync(tx *storage.Tx, asked bool) error {
	args, err := json.Marshal(imageSyncArgs{asked})
	if err != nil {
		return err
	}
	key := imageSyncJob
	if _, err := tx.EnqueueJob(storage.Job{Kind: imageSyncJob, Queue: "region", UniqueKey: &key, Args: args, MaxAttempts: imageSyncTries}); err != nil {
		return err
	}
	_, err = tx.Revision() // wakes the runners
	return err
}

// StopImport ends the import that is under way. What it has fetched so far stays, for the next one to go on from.
func (s *Service) StopImport(ctx context.Context) error {
	a, err := needPermission(ctx, "can_edit_boot_entities")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.CancelJobsOfKind(imageSyncJob)
		if err != nil || n == 0 {
			return err
		}
		return s.audit(tx, a, "IMAGES", "Stopped the import of images")
	})
}

// Importing says whether images are being imported.
func (s *Service) Importing(ctx context.Context) (bool, error) {
	if _, err := needUser(ctx); err != nil {
		return false, err
	}
	var n int
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.Jobs(storage.JobFilter{Kind: imageSyncJob, States: []string{storage.JobReady, storage.JobRunning}, Limit: 1})
		n = len(list)
		return err
	})
	return n > 0, err
}

// ImportWhenDue orders an import when images are imported by themselves and the last one is long ago, or a source or a selection has
// changed since. The source that every installation begins with counts only once somebody has changed it or has ordered an
// import: a new installation without a network asks nobody.
func (s *Service) ImportWhenDue(ctx context.Context) error {
	if s.Content == nil {
		return nil
	}
	due := false
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		on, err := s.settingBool(tx, "boot_images_auto_import", true)
		if err != nil || !on {
			return err
		}
		in, err := readSyncInput(tx)
		if err != nil {
			return err
		}
		for _, b := range in.active(false) {
			st, known := in.states[b.ID]
			due = due || !known || tx.Now().Sub(st.Checked) >= imageImportEvery || b.Updated.After(st.Checked)
			for _, x := range in.selections[b.ID] {
				due = due || x.Updated.After(st.Checked)
			}
		}
		return nil
	})
	if err != nil || !due {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error { return enqueueImageSync(tx, false) })
}

// syncInput is what the store says of sources.
type syncInput struct {
	sources    []storage.BootSource // the highest priority first
	selections map[int64][]storage.BootSourceSelection
	states     map[int64]storage.BootSourceState
}

func readSyncInput(tx *storage.Tx) (in syncInput, err error) {
	if in.sources, err = tx.BootSources(); err != nil {
		return in, err
	}
	slices.SortStableFunc(in.sources, func(a, b storage.BootSource) int { return cmp.Compare(b.Priority, a.Priority) })
	all, err := tx.AllBootSourceSelections()
	if err != nil {
		return in, err
	}
	in.selections = map[int64][]storage.BootSourceSelection{}
	for _, x := range all {
		in.selections[x.SourceID] = append(in.selections[x.SourceID], x)
	}
	states, err := tx.BootSourceStates()
	in.states = map[int64]storage.BootSourceState{}
	for _, st := range states {
		in.states[st.SourceID] = st
	}
	return in, err
}

// active are the sources that an import reads.
func (in *syncInput) active(asked bool) []storage.BootSource {
	return slices.DeleteFunc(slices.Clone(in.sources), func(b storage.BootSource) bool {
		_, read := in.states[b.ID]
		return !b.Enabled || !asked && !read && in.untouched(b)
	})
}

// untouched says whether a source is as the installation was born with it.
func (in *syncInput) untouched(b storage.BootSource) bool {
	if b.URL != storage.DefaultBootSourceURL || !b.Updated.Equal(b.Created) {
		return false
	}
	list := in.selections[b.ID]
	return len(list) == 1 && list[0].Updated.Equal(list[0].Created) && list[0].Created.Sub(b.Created) < time.Second
}

// source is a boot source as an import has read it.
type source struct {
	storage.BootSource
	mirror     mirror
	products   []simplestreams.Product
	selections []storage.BootSourceSelection
	problems   []string
	unread     bool // its index could not be read: what came from it stays as it is
}

func (b *source) problem(format string, args ...any) {
	if len(b.problems) < maxProblems {
		b.problems = append(b.problems, firstRunes(fmt.Sprintf(format, args...), 600))
	}
}

// runImageSync is the job.
func (s *Service) runImageSync(ctx context.Context, j storage.Job) (json.RawMessage, error) {
	var args imageSyncArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return nil, err
	}
	r := &syncRun{s: s, c: s.Images.defaults(), job: j}
	var in syncInput
	var proxy string
	var direct bool
	err := r.write(ctx, func(tx *storage.Tx) (err error) {
		if in, err = readSyncInput(tx); err != nil {
			return err
		}
		proxy, direct, err = s.imageProxy(tx)
		if err != nil {
			return err
		}
		r.began = tx.Now()
		for _, b := range in.active(args.Asked) {
			st := in.states[b.ID]
			st.SourceID, st.Checked = b.ID, r.began
			if err := tx.SetBootSourceState(st); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, b := range in.active(args.Asked) {
		src := &source{BootSource: b, selections: in.selections[b.ID]}
		r.sources = append(r.sources, src)
		m, err := openMirror(b.URL, r.c, proxy, direct)
		if err == nil {
			defer m.close()
			src.mirror = m
			err = s.readSource(ctx, r.c, src)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			src.unread, src.products = true, nil
			src.problem("The source %s cannot be read: %v.", b.Name, err)
		}
		if err := r.keepOffers(ctx, src, in.states[b.ID]); err != nil {
			return nil, err
		}
	}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	if err := r.fetchAll(ctx); err != nil {
		return nil, err
	}
	return r.finish(ctx, in.states)
}

// imageProxy is the proxy that mirrors are read through, "" for that of the environment; direct means none at all.
func (s *Service) imageProxy(tx *storage.Tx) (proxy string, direct bool, err error) {
	if direct, err = s.settingBool(tx, "boot_images_no_proxy", false); err != nil || direct {
		return "", direct, err
	}
	on, err := s.settingBool(tx, "enable_http_proxy", true)
	if err != nil || !on {
		return "", false, err
	}
	proxy, err = s.settingText(tx, "http_proxy", "")
	return proxy, false, err
}

// readSource reads a source's index and product files, and believes only what the source's keyring has signed, unless the source is
// one whose signatures are not to be checked.
func (s *Service) readSource(ctx context.Context, c ImageConfig, b *source) error {
	trusted := func(raw []byte) ([]byte, error) { return raw, nil }
	index, ext := simplestreams.PlainIndex, ".json"
	if !b.SkipKeyringVerification {
		ring, err := sourceKeyring(b.BootSource)
		if err != nil {
			return err
		}
		index, ext = simplestreams.SignedIndex, ".sjson"
		trusted = func(raw []byte) ([]byte, error) { return ring.Verify(raw, s.Now()) }
	}
	read := func(path string, limit int64) ([]byte, error) {
		raw, err := readSmall(ctx, b.mirror, c, path, limit)
		if err != nil {
			return nil, err
		}
		if raw, err = trusted(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return raw, nil
	}
	raw, err := read(index, simplestreams.MaxIndex)
	if err != nil {
		return err
	}
	entries, err := simplestreams.ParseIndex(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", index, err)
	}
	for _, e := range entries {
		path := strings.TrimSuffix(strings.TrimSuffix(e.Path, ".json"), ".sjson") + ext
		raw, err := read(path, simplestreams.MaxProducts)
		if err != nil {
			return err
		}
		p, err := simplestreams.ParseProducts(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		b.products = append(b.products, p.Products...)
		for _, text := range p.Problems {
			b.problem("%s", text)
		}
	}
	return nil
}

// sourceKeyring reads the keys that may sign a source.
func sourceKeyring(b storage.BootSource) (simplestreams.Keyring, error) {
	raw := b.KeyringData
	if len(raw) == 0 {
		var err error
		if raw, err = readRegular(b.KeyringFilename, simplestreams.MaxKeyring); err != nil {
			return simplestreams.Keyring{}, fmt.Errorf("the keyring %s cannot be read on this region: %w; install it, or upload it as keyring_data", b.KeyringFilename, err)
		}
	}
	return simplestreams.ReadKeyring(raw)
}

// keepOffers writes down what a source offers, for the check of selections; a source that was not read keeps what it offered before.
func (r *syncRun) keepOffers(ctx context.Context, b *source, before storage.BootSourceState) error {
	if b.unread {
		return nil
	}
	offers, err := json.Marshal(offersOf(b.products))
	if err != nil {
		return err
	}
	return r.write(ctx, func(tx *storage.Tx) error {
		if _, err := tx.BootSource(b.ID); err != nil {
			if isNotFound(err) {
				return nil // deleted meanwhile
			}
			return err
		}
		return tx.SetBootSourceState(storage.BootSourceState{SourceID: b.ID, Checked: r.began, Error: before.Error, Offers: offers})
	})
}

func offersOf(products []simplestreams.Product) []imageOffer {
	at := map[[2]string]int{}
	out := []imageOffer{}
	add := func(list *[]string, v string) {
		if i, found := slices.BinarySearch(*list, v); !found {
			*list = slices.Insert(*list, i, v)
		}
	}
	for _, p := range products {
		k := [2]string{p.OS, p.Release}
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, imageOffer{OS: p.OS, Release: p.Release, Title: p.Title})
		}
		add(&out[i].Arches, p.Arch)
		add(&out[i].Labels, p.Label)
		for _, sub := range append(p.Subarches, p.Subarch, p.Kernel()) {
			add(&out[i].Subarches, sub)
		}
	}
	slices.SortFunc(out, func(a, b imageOffer) int {
		return cmp.Or(strings.Compare(a.OS, b.OS), strings.Compare(a.Release, b.Release))
	})
	return out
}

// selects says whether a selection wants an image. An empty list wants all, as * does.
func selects(x storage.BootSourceSelection, osystem, release, arch string, subarches []string, label string) bool {
	one := func(want, have string) bool { return want == "" || want == "*" || want == have }
	some := func(want []string, have ...string) bool {
		return len(want) == 0 || slices.Contains(want, "*") || slices.ContainsFunc(have, func(h string) bool { return slices.Contains(want, h) })
	}
	return one(x.OS, osystem) && one(x.Release, release) && some(x.Arches, arch) && some(x.Subarches, subarches...) && some(x.Labels, label)
}

// dropUnselected removes the images that came from a mirror and that no selection of any source wants any more.
func dropUnselected(tx *storage.Tx) error {
	origins, err := tx.Origins()
	if err != nil || len(origins) == 0 {
		return err
	}
	resources, err := tx.BootResources()
	if err != nil {
		return err
	}
	sets, err := tx.BootResourceSets(nil)
	if err != nil {
		return err
	}
	selections, err := tx.AllBootSourceSelections()
	if err != nil {
		return err
	}
	labels := map[int64]string{}
	for _, x := range sets {
		labels[x.ResourceID] = x.Label // the newest comes last
	}
	dropped := false
	for _, r := range resources {
		if _, synced := origins[r.ID]; !synced {
			continue
		}
		osystem, release, _ := strings.Cut(r.Name, "/")
		arch, kernel, _ := strings.Cut(r.Architecture, "/")
		subarches := append(strings.Split(extraString(r.Extra, "subarches"), ","), kernel)
		if slices.ContainsFunc(selections, func(x storage.BootSourceSelection) bool {
			return selects(x, osystem, release, arch, subarches, labels[r.ID])
		}) {
			continue
		}
		if err := tx.DeleteBootResource(r.ID); err != nil {
			return err
		}
		dropped = true
	}
	if dropped {
		_, err = tx.Revision()
	}
	return err
}
