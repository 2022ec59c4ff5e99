package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/provisioner/simplestreams"
	"github.com/ingot-metal/ingot/storage"
)

// syncRun is one attempt at an import.
type syncRun struct {
	s       *Service
	c       ImageConfig
	job     storage.Job
	began   time.Time
	sources []*source
	blobs   []*blob

	mu      sync.Mutex // guards the sources' problems and what follows
	fetched int
	bytes   int64
	full    bool
}

// blob is content to fetch, for one file or for several that are the same.
type blob struct {
	sha    string
	size   int64
	source *source
	path   string
	files  []storage.BootResourceFile // the one that has received most comes first
	sets   map[int64]int64            // set → resource
}

// errLost says that the import is not, or no longer, this region's: it was stopped, or another region has it.
var errLost = errors.New("the import was stopped or is another region's")

// write changes the store while the job is still this attempt's, and keeps its lease: an attempt that was lost changes nothing.
func (r *syncRun) write(ctx context.Context, fn func(tx *storage.Tx) error) error {
	return r.s.DB.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.HeartbeatJob(r.job.ID, r.job.Attempt, imageSyncLease); err != nil {
			if errors.Is(err, storage.ErrStale) {
				return errLost
			}
			return err
		}
		return fn(tx)
	})
}

func (r *syncRun) problem(b *source, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.problem(format, args...)
}

// wanted is a product that an import is to bring.
type wanted struct {
	source  *source
	product simplestreams.Product
}

func (w *wanted) name() string { return w.product.OS + "/" + w.product.Release }
func (w *wanted) arch() string { return w.product.Arch + "/" + w.product.Kernel() }

// choose finds the products that are selected. Of several sources that have a release for an architecture, the one with the highest
// priority brings all of it: kernels and root file systems of two mirrors are never mixed. What came from a source that cannot be
// read now stays that source's.
func (r *syncRun) choose(resources []storage.BootResource, origins map[int64]int64) []wanted {
	owner := map[string]int64{}
	var out []wanted
	seen := map[string]int{}
	for _, b := range r.sources {
		if b.unread {
			for _, res := range resources {
				if origins[res.ID] != b.ID {
					continue
				}
				arch, _, _ := strings.Cut(res.Architecture, "/")
				if k := res.Name + " " + arch; owner[k] == 0 {
					owner[k] = b.ID
				}
			}
			continue
		}
		for _, x := range b.selections {
			found := false
			for _, p := range b.products {
				if !selects(x, p.OS, p.Release, p.Arch, append(p.Subarches, p.Subarch, p.Kernel()), p.Label) {
					continue
				}
				found = true
				k := p.OS + "/" + p.Release + " " + p.Arch
				if owner[k] != 0 && owner[k] != b.ID {
					continue
				}
				owner[k] = b.ID
				w := wanted{b, p}
				if i, twice := seen[w.name()+" "+w.arch()]; twice {
					if simplestreams.CompareVersions(p.Version, out[i].product.Version) > 0 {
						out[i] = w
					}
					continue
				}
				seen[w.name()+" "+w.arch()] = len(out)
				out = append(out, w)
			}
			if !found {
				b.problem("The source %s offers nothing that the selection of %s/%s for %s wants; what it brought before stays.", b.Name, x.OS, x.Release, wordList(x.Arches))
			}
		}
	}
	return out
}

func wordList(list []string) string {
	if len(list) == 0 {
		return "*"
	}
	return strings.Join(list, ", ")
}

// plan writes what is to come as versions that are not complete, and finds out what has to be fetched for them.
func (r *syncRun) plan(ctx context.Context) error {
	free, err := r.s.Content.Free()
	if err != nil {
		return fmt.Errorf("disk of the content: %w", err)
	}
	have, err := r.present()
	if err != nil {
		return err
	}
	noted := make([]int, len(r.sources))
	for i, b := range r.sources {
		noted[i] = len(b.problems)
	}
	return r.write(ctx, func(tx *storage.Tx) error {
		for i, b := range r.sources {
			b.problems = b.problems[:noted[i]] // the function may run twice
		}
		p := planner{run: r, tx: tx, have: have, room: free - diskReserve, files: map[int64][]storage.BootResourceFile{},
			sets: map[int64][]storage.BootResourceSet{}, blobs: map[string]*blob{}}
		var err error
		resources, err := tx.BootResources()
		if err != nil {
			return err
		}
		if p.origins, err = tx.Origins(); err != nil {
			return err
		}
		sets, err := tx.BootResourceSets(nil)
		if err != nil {
			return err
		}
		for _, x := range sets {
			p.sets[x.ResourceID] = append(p.sets[x.ResourceID], x)
		}
		files, err := tx.BootResourceFiles(nil)
		if err != nil {
			return err
		}
		for _, f := range files {
			p.files[f.SetID] = append(p.files[f.SetID], f)
		}
		for _, w := range r.choose(resources, p.origins) {
			if err := p.add(w); err != nil {
				return err
			}
		}
		r.blobs = p.order
		return nil
	})
}

// present finds which of the offered files are stored already, and makes those young.
func (r *syncRun) present() (map[string]int64, error) {
	have := map[string]int64{}
	for _, b := range r.sources {
		for _, p := range b.products {
			if !slices.ContainsFunc(b.selections, func(x storage.BootSourceSelection) bool {
				return selects(x, p.OS, p.Release, p.Arch, append(p.Subarches, p.Subarch, p.Kernel()), p.Label)
			}) {
				continue
			}
			for _, i := range p.Items {
				size, err := r.s.Content.Touch(i.SHA256, r.s.Now())
				switch {
				case err == nil:
					have[i.SHA256] = size
				case !errors.Is(err, os.ErrNotExist):
					return nil, err
				}
			}
		}
	}
	return have, nil
}

type planner struct {
	run     *syncRun
	tx      *storage.Tx
	have    map[string]int64 // digest → size
	room    int64            // bytes that may still be fetched
	origins map[int64]int64
	sets    map[int64][]storage.BootResourceSet
	files   map[int64][]storage.BootResourceFile
	blobs   map[string]*blob
	order   []*blob
}

func whole(files []storage.BootResourceFile) bool {
	return len(files) > 0 && !slices.ContainsFunc(files, func(f storage.BootResourceFile) bool { return !f.Complete })
}

// sameContent says whether a version has exactly these files, whatever is there of them.
func sameContent(have, want []storage.BootResourceFile) bool {
	return len(have) == len(want) && !slices.ContainsFunc(want, func(w storage.BootResourceFile) bool {
		return !slices.ContainsFunc(have, func(h storage.BootResourceFile) bool {
			return h.Filetype == w.Filetype && h.SHA256 == w.SHA256 && h.Size == w.Size
		})
	})
}

// add plans one product.
func (p *planner) add(w wanted) error {
	b := w.source
	var rows []storage.BootResourceFile
	for _, i := range w.product.Items {
		if size, ok := p.have[i.SHA256]; ok && size != i.Size {
			b.problem("%s %s is not imported: the mirror says that %s has %d bytes, but the content with its digest has %d.", w.name(), w.arch(), i.Path, i.Size, size)
			return nil
		}
		rows = append(rows, fileRow(i))
	}
	res, err := p.tx.BootResourceNamed(w.name(), w.arch())
	switch {
	case isNotFound(err):
		res = storage.BootResource{Rtype: storage.ResourceSynced, Name: w.name(), Architecture: w.arch()}
	case err != nil:
		return err
	case p.origins[res.ID] == 0:
		b.problem("%s %s is not imported: an image of this name was uploaded or imported by hand. Delete that one first.", w.name(), w.arch())
		return nil
	}
	sets := p.sets[res.ID]
	var current, started *storage.BootResourceSet
	for i := range sets {
		switch x := &sets[i]; {
		case whole(p.files[x.ID]):
			current = x
		case sameContent(p.files[x.ID], rows):
			started = x
		}
	}
	if current != nil && sameContent(p.files[current.ID], rows) {
		if err := p.save(w, &res); err != nil {
			return err
		}
		return p.dropStarted(res.ID, 0)
	}
	need := int64(0)
	for _, f := range rows {
		if _, ok := p.have[f.SHA256]; !ok && p.blobs[f.SHA256] == nil {
			need += f.Size
		}
	}
	if started != nil {
		for _, f := range p.files[started.ID] {
			if !f.Complete {
				need -= f.Uploaded
			}
		}
	}
	if need > p.room {
		b.problem("%s %s is not imported: the disk of the region's content is too full. The new version needs %d more bytes, and %d are free beside the reserve. The version before stays.",
			w.name(), w.arch(), need, max(p.room, 0))
		return nil
	}
	p.room -= need
	if err := p.save(w, &res); err != nil {
		return err
	}
	if started == nil {
		if started, err = p.begin(w, res.ID, rows); err != nil {
			return err
		}
	}
	if err := p.dropStarted(res.ID, started.ID); err != nil {
		return err
	}
	for _, f := range p.files[started.ID] {
		if _, ok := p.have[f.SHA256]; ok && !f.Complete {
			if err := p.tx.CompleteFile(f.ID); err != nil {
				return err
			}
		} else if !f.Complete {
			p.fetch(w, res.ID, f)
		}
	}
	return p.run.s.settle(p.tx, res.ID, started.ID)
}

// fileRow is the row of a file of a mirror.
func fileRow(i simplestreams.Item) storage.BootResourceFile {
	f := storage.BootResourceFile{Filename: i.Filetype, Filetype: i.Filetype, SHA256: i.SHA256, Size: i.Size, Extra: json.RawMessage("{}")}
	if name, ok := localTypes[i.Filetype]; ok {
		f.Filename = name
	}
	if i.KPackage != "" {
		f.Extra, _ = json.Marshal(map[string]string{"kpackage": i.KPackage}) // a map of strings always marshals
	}
	return f
}

// save writes the row of a product's image.
func (p *planner) save(w wanted, res *storage.BootResource) error {
	extra := map[string]any{"subarches": strings.Join(w.product.Subarches, ",")}
	for key, v := range map[string]string{"title": w.product.Title, "kflavor": w.product.KFlavor, "platform": w.product.Platform} {
		if v != "" {
			extra[key] = v
		}
	}
	if w.product.Rolling {
		extra["rolling"] = true
	}
	doc, err := json.Marshal(extra)
	if err != nil {
		return err
	}
	same := string(res.Extra) == string(doc)
	res.Extra = doc
	switch {
	case res.ID == 0:
		err = p.tx.InsertBootResource(res)
	case !same:
		err = p.tx.UpdateBootResource(res)
	}
	if err != nil || p.origins[res.ID] == w.source.ID {
		return err
	}
	p.origins[res.ID] = w.source.ID
	return p.tx.SetOrigin(res.ID, w.source.ID)
}

// dropStarted removes the versions of an image that never became complete, but one.
func (p *planner) dropStarted(resource, keep int64) error {
	for _, x := range p.sets[resource] {
		if x.ID == keep || whole(p.files[x.ID]) {
			continue
		}
		if err := p.tx.DeleteBootResourceSet(x.ID); err != nil {
			return err
		}
	}
	return nil
}

// begin writes the rows of a new version.
func (p *planner) begin(w wanted, resource int64, rows []storage.BootResourceFile) (*storage.BootResourceSet, error) {
	version := w.product.Version
	taken := func(o storage.BootResourceSet) bool { return o.Version == version }
	for n := 1; slices.ContainsFunc(p.sets[resource], taken); n++ { // published anew under its old number
		version = fmt.Sprintf("%s.%d", w.product.Version, n)
	}
	set := storage.BootResourceSet{ResourceID: resource, Version: version, Label: w.product.Label}
	if err := p.tx.InsertBootResourceSet(&set); err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].SetID = set.ID
		if err := p.tx.InsertBootResourceFile(&rows[i]); err != nil {
			return nil, err
		}
	}
	p.files[set.ID] = rows
	return &set, nil
}

// fetch adds a file to what is fetched.
func (p *planner) fetch(w wanted, resource int64, f storage.BootResourceFile) {
	i := slices.IndexFunc(w.product.Items, func(i simplestreams.Item) bool { return i.SHA256 == f.SHA256 && i.Filetype == f.Filetype })
	x := p.blobs[f.SHA256]
	if x == nil {
		x = &blob{sha: f.SHA256, size: f.Size, source: w.source, path: w.product.Items[i].Path, sets: map[int64]int64{}}
		p.blobs[f.SHA256] = x
		p.order = append(p.order, x)
	}
	x.sets[f.SetID] = resource
	if len(x.files) > 0 && f.Uploaded > x.files[0].Uploaded {
		x.files = append([]storage.BootResourceFile{f}, x.files...)
	} else {
		x.files = append(x.files, f)
	}
}

// settle drops the versions before one that is complete now, and tells the racks.
func (s *Service) settle(tx *storage.Tx, resource, set int64) error {
	files, err := tx.BootResourceFiles([]int64{resource})
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(f storage.BootResourceFile) bool { return f.SetID != set })
	if !whole(files) {
		return nil
	}
	return s.dropVersions(tx, resource, set, true)
}

// fetchAll fetches what is missing, several at once. What fails is noted and spoils nothing else.
func (r *syncRun) fetchAll(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.c.Parallel)
	for _, x := range r.blobs {
		g.Go(func() error {
			err := r.fetch(gctx, x)
			switch {
			case err == nil:
				r.mu.Lock()
				r.fetched++
				r.bytes += x.size
				r.mu.Unlock()
				return nil
			case errors.Is(err, errLost), gctx.Err() != nil:
				return err
			case errors.Is(err, storage.ErrStale):
				return nil // deleted meanwhile, with its selection
			case errors.Is(err, content.ErrNoSpace):
				r.mu.Lock()
				first := !r.full
				r.full = true
				r.mu.Unlock()
				if first {
					r.problem(x.source, "The disk of the region's content is full: %s could not be stored. What was complete before stays; make room and import again.", x.path)
				}
				return nil
			}
			r.problem(x.source, "%v.", err)
			return nil
		})
	}
	return g.Wait()
}

// fetch brings one blob, from where an earlier try ended.
func (r *syncRun) fetch(ctx context.Context, x *blob) error {
	f := x.files[0]
	up, err := r.s.Content.NewUpload(uploadName(f.ID))
	if err != nil {
		return err
	}
	release, err := up.HoldWait(ctx)
	if err != nil {
		return err
	}
	defer release()
	have, pause := f.Uploaded, r.c.Pause
	for try := 1; have < x.size; try++ {
		r.mu.Lock()
		full := r.full
		r.mu.Unlock()
		if full {
			return content.ErrNoSpace
		}
		at, err := r.stream(ctx, x, up, f.ID, have)
		if errors.As(err, new(tooLong)) {
			if perr := r.progress(ctx, f.ID, at, 0); perr != nil {
				return perr
			}
			return fmt.Errorf("Not imported: %w", errors.Join(err, up.Discard()))
		}
		if at > have {
			have, try, pause = at, 1, r.c.Pause
		}
		switch {
		case err == nil && have == x.size:
			continue
		case err == nil:
			err = fmt.Errorf("%s ends after %d of %d bytes", x.path, have, x.size)
		case ctx.Err() != nil, errors.Is(err, errLost), errors.Is(err, storage.ErrStale), errors.Is(err, content.ErrNoSpace):
			return err
		case errors.Is(err, content.ErrLost):
			if err := r.progress(ctx, f.ID, have, 0); err != nil {
				return err
			}
			have = 0
		}
		if refusedBy(err) || try >= r.c.Tries {
			return fmt.Errorf("Not imported: %w", err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
	switch err := up.Finish(ctx, x.size, x.sha); {
	case errors.Is(err, content.ErrDigest):
		if err := r.progress(ctx, f.ID, have, 0); err != nil {
			return err
		}
		return fmt.Errorf("Not imported: %s has not the SHA-256 digest that its product file names", x.path)
	case errors.Is(err, content.ErrLost):
		if err := r.progress(ctx, f.ID, have, 0); err != nil {
			return err
		}
		return fmt.Errorf("Not imported: the bytes of %s received so far are lost; the next import fetches them again", x.path)
	case err != nil:
		return err
	}
	return r.complete(ctx, x)
}

// stream reads from an offset on, piece by piece, and returns how many bytes are durable.
func (r *syncRun) stream(ctx context.Context, x *blob, up *content.Upload, file, have int64) (int64, error) {
	body, err := x.source.mirror.open(ctx, x.path, have)
	if err != nil {
		return have, err
	}
	defer body.Close()
	src := &keepError{r: body}
	for have < x.size {
		n := min(r.c.Piece, x.size-have)
		at, err := up.Append(have, io.LimitReader(src, n), n)
		if err != nil {
			return have, err
		}
		if at > have {
			if err := r.progress(ctx, file, have, at); err != nil {
				return have, err
			}
		}
		short := at < have+n
		have = at
		if src.err != nil {
			return have, fmt.Errorf("%s: %w", x.path, src.err)
		}
		if short {
			return have, nil
		}
	}
	var one [1]byte
	if n, _ := io.ReadFull(src, one[:]); n > 0 {
		// Another file than the product file describes; what was read of it may even be right.
		return have, tooLong{fmt.Errorf("%s has more than the %d bytes that its product file names", x.path, x.size)}
	}
	return have, nil
}

// tooLong says that a file is longer than it should be.
type tooLong struct{ error }

// keepError makes an error the end of what is read, so that the bytes before it are kept.
type keepError struct {
	r   io.Reader
	err error
}

func (k *keepError) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && err != io.EOF {
		k.err = err
		err = io.EOF
	}
	return n, err
}

// progress records how many bytes of a file are there: it is what the API shows and what the next attempt goes on from.
func (r *syncRun) progress(ctx context.Context, file, from, to int64) error {
	return r.write(ctx, func(tx *storage.Tx) error { return tx.AdvanceUpload(file, from, to, false) })
}

// complete records that a blob is stored, for all the files that it is.
func (r *syncRun) complete(ctx context.Context, x *blob) error {
	return r.write(ctx, func(tx *storage.Tx) error {
		for _, f := range x.files {
			if err := tx.CompleteFile(f.ID); err != nil {
				return err
			}
		}
		for set, resource := range x.sets {
			if err := r.s.settle(tx, resource, set); err != nil {
				return err
			}
		}
		return nil
	})
}

// finish drops what nobody selects and says how it went: in the state of each source, in events, and in the log when it is news.
func (r *syncRun) finish(ctx context.Context, before map[int64]storage.BootSourceState) (json.RawMessage, error) {
	err := r.write(ctx, func(tx *storage.Tx) error {
		if err := dropUnselected(tx); err != nil {
			return err
		}
		states, err := tx.BootSourceStates()
		if err != nil {
			return err
		}
		for _, b := range r.sources {
			i := slices.IndexFunc(states, func(st storage.BootSourceState) bool { return st.SourceID == b.ID })
			if i < 0 {
				continue // deleted meanwhile
			}
			text := strings.Join(b.problems, "\n")
			if text != before[b.ID].Error {
				for _, p := range b.problems {
					if err := importEvent(tx, "REGION_IMPORT_ERROR", levelError, p); err != nil {
						return err
					}
				}
			}
			states[i].Error = text
			if err := tx.SetBootSourceState(states[i]); err != nil {
				return err
			}
		}
		if r.fetched > 0 {
			return importEvent(tx, "REGION_IMPORT_INFO", levelInfo, fmt.Sprintf("Imported boot images: %d files, %d bytes", r.fetched, r.bytes))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	problems := 0
	for _, b := range r.sources {
		problems += len(b.problems)
		if text := strings.Join(b.problems, "\n"); text != "" && text != before[b.ID].Error {
			r.s.Log.Warn("boot source has problems", "source", b.ID, "name", b.Name, "problems", b.problems)
		}
	}
	return json.Marshal(map[string]any{"files": r.fetched, "bytes": r.bytes, "problems": problems})
}

func importEvent(tx *storage.Tx, typ string, level int64, text string) error {
	return tx.InsertEvent(&storage.Event{Type: typ, Level: level, Description: text})
}

// readRegular reads a file that is not a device or a pipe, at most limit bytes of it.
func readRegular(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, unwrapPath(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, unwrapPath(err)
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("not a regular file of at most %d bytes", limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// unwrapPath leaves the name of the file out of an error whose caller names it.
func unwrapPath(err error) error {
	if pe := new(os.PathError); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
