// Package content keeps immutable blobs (kernels, root images, the agent) in a directory, each under the SHA-256 of its bytes. It
// owns how bytes become durable: they are written beside the blobs, synced, verified and renamed into place, so that a blob that
// can be opened is whole, however the process ended. It knows nothing of images, users or databases; who may see a blob and which
// ones are still wanted is its caller's business.
package content

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The errors that callers tell apart.
var (
	// ErrDigest says that the bytes are not those that the digest names.
	ErrDigest = errors.New("content does not match its SHA-256 digest")
	// ErrNoSpace says that the disk is full.
	ErrNoSpace = errors.New("no space left on device")
	// ErrTooLong says that more bytes came than the blob has room for. Nothing of the piece is kept.
	ErrTooLong = errors.New("more data than announced")
	// ErrBusy says that another piece of the same upload is just arriving.
	ErrBusy = errors.New("another piece is being received")
	// ErrLost says that the bytes received so far are not on the disk any more; the upload has to start again.
	ErrLost = errors.New("the bytes received so far are lost")
	// ErrBadName says that a digest or an upload's name has not the form of one.
	ErrBadName = errors.New("malformed name")
)

const (
	blobDir   = "blobs"
	uploadDir = "uploads"
)

// Store is a directory of blobs. Its methods may be called from many goroutines. Several processes may Put and Open; one at a time
// receives uploads and sweeps.
type Store struct {
	dir  string
	root *os.Root // refuses every path that leads outside, symbolic links included

	// life orders Touch and Put against Sweep: a blob that was just found is not swept from under its finder.
	life sync.Mutex

	mu      sync.Mutex
	uploads map[string]*Upload

	// write is file.Write; tests put a full disk here.
	write func(f *os.File, p []byte) (int, error)
	free  func() (int64, error) // nil: what the file system says
}

// Open opens the store in dir, making the directory when it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("content store: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("content store: %w", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("content store: %w", err)
	}
	for _, d := range []string{blobDir, uploadDir} {
		if err := root.Mkdir(d, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			root.Close()
			return nil, fmt.Errorf("content store: %w", err)
		}
	}
	return &Store{dir: abs, root: root, uploads: map[string]*Upload{}, write: (*os.File).Write}, nil
}

// Close gives the directory back.
func (s *Store) Close() error { return s.root.Close() }

// ValidDigest reports whether sha is a SHA-256 digest as this store writes it: 64 lower-case hexadecimal digits.
func ValidDigest(sha string) bool {
	if len(sha) != 2*sha256.Size {
		return false
	}
	for i := range len(sha) {
		if c := sha[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func blobName(sha string) (string, error) {
	if !ValidDigest(sha) {
		return "", fmt.Errorf("%w: not a SHA-256 digest", ErrBadName)
	}
	return blobDir + "/" + sha, nil
}

// Path returns where the blob lies, for programs that need a name, or "" when sha is not a digest. The file may not exist.
func (s *Store) Path(sha string) string {
	name, err := blobName(sha)
	if err != nil {
		return ""
	}
	return filepath.Join(s.dir, name)
}

// Open opens a blob for reading. A blob that is not there is fs.ErrNotExist.
func (s *Store) Open(sha string) (*os.File, error) {
	name, err := blobName(sha)
	if err != nil {
		return nil, err
	}
	return s.root.Open(name)
}

// Has reports whether the blob is stored.
func (s *Store) Has(sha string) bool {
	_, err := s.Size(sha)
	return err == nil
}

// Size returns the length of a stored blob; fs.ErrNotExist when there is none.
func (s *Store) Size(sha string) (int64, error) {
	name, err := blobName(sha)
	if err != nil {
		return 0, err
	}
	st, err := s.root.Lstat(name)
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, fs.ErrNotExist
	}
	return st.Size(), nil
}

// Touch is Size for one who is about to refer to the blob: it makes the blob young, so that Sweep spares it until the reference
// is written.
func (s *Store) Touch(sha string, now time.Time) (int64, error) {
	s.life.Lock()
	defer s.life.Unlock()
	size, err := s.Size(sha)
	if err != nil {
		return 0, err
	}
	name, _ := blobName(sha)
	return size, s.root.Chtimes(name, now, now)
}

// Remove deletes a blob; that it was not there is no error. Open files stay readable.
func (s *Store) Remove(sha string) error {
	name, err := blobName(sha)
	if err != nil {
		return err
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Put stores what r yields and returns its digest and length. Memory use does not depend on the length.
func (s *Store) Put(r io.Reader) (sha string, size int64, err error) {
	name := uploadDir + "/put-" + rand.Text()
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return "", 0, translate(err)
	}
	defer func() {
		if err != nil {
			_ = s.root.Remove(name)
		}
	}()
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(s.writer(f), h), r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", 0, translate(err)
	}
	sha = hex.EncodeToString(h.Sum(nil))
	return sha, size, s.place(name, sha)
}

// place renames a synced file into the blobs and makes the rename durable.
func (s *Store) place(name, sha string) error {
	blob, err := blobName(sha)
	if err != nil {
		return err
	}
	s.life.Lock()
	defer s.life.Unlock()
	if err := s.root.Rename(name, blob); err != nil {
		return translate(err)
	}
	return s.syncDir(blobDir)
}

func (s *Store) syncDir(dir string) error {
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return translate(d.Sync())
}

// writer hides the file's ReadFrom, so that every write passes s.write.
func (s *Store) writer(f *os.File) io.Writer { return fileWriter{s, f} }

type fileWriter struct {
	s *Store
	f *os.File
}

func (w fileWriter) Write(p []byte) (int, error) { return w.s.write(w.f, p) }

// translate makes a full disk recognisable.
func translate(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w (%w)", ErrNoSpace, err)
	}
	return err
}

// Upload is a blob that arrives in pieces, over many requests and across restarts. Its state on the disk is the bytes
// themselves; how many of them count is what the caller has recorded, and tells Append. The bytes beyond that number, from a
// piece that was cut short, are dropped by the next Append.
type Upload struct {
	store *Store
	name  string
	held  sync.Mutex

	mu sync.Mutex
	// rolling is the digest of the first hashed bytes. After a restart it starts anew, and Finish reads the file instead.
	rolling hash.Hash
	hashed  int64
}

// NewUpload returns the upload of that name, new or continued. The name is the caller's: letters, digits, "-" and "_".
func (s *Store) NewUpload(name string) (*Upload, error) {
	if name == "" || len(name) > 100 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return nil, fmt.Errorf("%w: %q cannot name an upload", ErrBadName, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[name]
	if u == nil {
		u = &Upload{store: s, name: name, rolling: sha256.New()}
		s.uploads[name] = u
	}
	return u, nil
}

func (u *Upload) path() string { return uploadDir + "/up-" + u.name }

// Hold keeps other holders away from the upload until release is called; ErrBusy when somebody has it. Whoever reads how many bytes
// count, appends after them and records the new number must hold it meanwhile.
func (u *Upload) Hold() (release func(), err error) {
	if !u.held.TryLock() {
		return nil, ErrBusy
	}
	return u.held.Unlock, nil
}

// HoldWait is Hold for one who can wait until the other holder is done.
func (u *Upload) HoldWait(ctx context.Context) (release func(), err error) {
	for {
		if release, err = u.Hold(); err == nil {
			return release, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Append writes what r yields after the first offset bytes, and returns the new length once it is durable. r that yields more than
// limit bytes is ErrTooLong. After an error the upload still has offset bytes.
func (u *Upload) Append(offset int64, r io.Reader, limit int64) (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f, err := u.store.root.OpenFile(u.path(), os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return offset, translate(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return offset, err
	}
	if st.Size() < offset {
		return offset, ErrLost
	}
	if err := f.Truncate(offset); err != nil {
		return offset, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return offset, err
	}
	if offset == 0 {
		u.rolling.Reset()
		u.hashed = 0
	}
	w := u.store.writer(f)
	follow := u.hashed == offset
	if follow {
		w = io.MultiWriter(w, u.rolling)
	}
	u.hashed = -1 // until the piece is durable, the digest is of no known prefix
	n, err := io.Copy(w, io.LimitReader(r, limit))
	if err == nil && n == limit {
		var one [1]byte
		if extra, _ := io.ReadFull(r, one[:]); extra > 0 {
			err = ErrTooLong
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_ = f.Truncate(offset)
		return offset, translate(err)
	}
	if follow {
		u.hashed = offset + n
	}
	if offset == 0 {
		if err := u.store.syncDir(uploadDir); err != nil { // the file's name must survive as well
			return offset, err
		}
	}
	return offset + n, nil
}

// Finish verifies that the first size bytes have the digest and moves them into the blobs. ErrDigest drops the upload. An upload
// whose Finish was interrupted after the move can be finished again.
func (u *Upload) Finish(ctx context.Context, size int64, sha string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !ValidDigest(sha) {
		return fmt.Errorf("%w: not a SHA-256 digest", ErrBadName)
	}
	f, err := u.store.root.OpenFile(u.path(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if have, serr := u.store.Size(sha); serr == nil && have == size {
			u.forget()
			return nil
		}
		return ErrLost
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < size {
		return ErrLost
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if u.hashed != size {
		u.rolling.Reset()
		if _, err := io.Copy(u.rolling, ctxReader{ctx, f}); err != nil {
			u.hashed = -1
			return err
		}
		u.hashed = size
	}
	if hex.EncodeToString(u.rolling.Sum(nil)) != sha {
		_ = u.store.root.Remove(u.path())
		u.forget()
		return ErrDigest
	}
	if err := f.Sync(); err != nil {
		return translate(err)
	}
	if err := u.store.place(u.path(), sha); err != nil {
		return err
	}
	u.forget()
	return nil
}

// Discard drops the upload and its bytes.
func (u *Upload) Discard() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget()
	if err := u.store.root.Remove(u.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u *Upload) forget() {
	u.rolling.Reset()
	u.hashed = 0
	u.store.mu.Lock()
	defer u.store.mu.Unlock()
	if u.store.uploads[u.name] == u {
		delete(u.store.uploads, u.name)
	}
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Sweep removes blobs and uploads that nobody wants: those last touched before the given time for which the wanted functions say no.
// It returns how many files went.
func (s *Store) Sweep(before time.Time, wantBlob, wantUpload func(name string) bool) (int, error) {
	gone := 0
	blobs, err := s.names(blobDir)
	if err != nil {
		return 0, err
	}
	for _, name := range blobs {
		if ValidDigest(name) && wantBlob(name) {
			continue
		}
		ok, err := s.removeOld(blobDir+"/"+name, before)
		if err != nil {
			return gone, err
		}
		gone += ok
	}
	parts, err := s.names(uploadDir)
	if err != nil {
		return gone, err
	}
	for _, name := range parts {
		if up, isUpload := strings.CutPrefix(name, "up-"); isUpload && wantUpload(up) {
			continue
		}
		ok, err := s.removeOld(uploadDir+"/"+name, before)
		if err != nil {
			return gone, err
		}
		gone += ok
	}
	return gone, nil
}

func (s *Store) removeOld(name string, before time.Time) (int, error) {
	s.life.Lock()
	defer s.life.Unlock()
	st, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (st.IsDir() || !st.ModTime().Before(before)) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := s.root.Remove(name); err != nil {
		return 0, err
	}
	return 1, nil
}

func (s *Store) names(dir string) ([]string, error) {
	d, err := s.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
