package storage

import (
	"database/sql"
	"encoding/json"
)

// Boot resources: an image's name and architecture, its versions (sets), and the files of each, which name blobs by digest.

// The kinds of boot resources.
const (
	ResourceSynced   = 0
	ResourceUploaded = 2
)

const bootResourceColumns = `id, rtype, name, architecture, extra, created, updated`

func scanBootResource(r scanner) (b BootResource, err error) {
	err = r.Scan(&b.ID, &b.Rtype, &b.Name, &b.Architecture, scanJSON(&b.Extra), scanTime(&b.Created), scanTime(&b.Updated))
	return b, err
}

// InsertBootResource writes a new resource and sets its ID.
func (tx *Tx) InsertBootResource(b *BootResource) error {
	if len(b.Extra) == 0 {
		b.Extra = []byte("{}")
	}
	b.Created, b.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&b.ID}, `insert into boot_resources (rtype, name, architecture, extra, created, updated) values ($1, $2, $3, $4, $5, $6) returning id`,
		b.Rtype, b.Name, b.Architecture, jsonArg(b.Extra, "{}"), b.Created, b.Updated)
}

// UpdateBootResource writes a resource's kind and extra facts.
func (tx *Tx) UpdateBootResource(b *BootResource) error {
	b.Updated = tx.Now()
	return tx.one(`update boot_resources set rtype = $2, extra = $3, updated = $4 where id = $1`,
		b.ID, b.Rtype, jsonArg(b.Extra, "{}"), b.Updated)
}

// BootResource returns a resource by id.
func (tx *Tx) BootResource(id int64) (BootResource, error) {
	return row(tx, scanBootResource, `select `+bootResourceColumns+` from boot_resources where id = $1`, id)
}

// BootResourceNamed returns a resource by name and architecture.
func (tx *Tx) BootResourceNamed(name, architecture string) (BootResource, error) {
	return row(tx, scanBootResource, `select `+bootResourceColumns+` from boot_resources where name = $1 and architecture = $2`, name, architecture)
}

// BootResources returns all resources by id.
func (tx *Tx) BootResources() ([]BootResource, error) {
	return list(tx, scanBootResource, `select `+bootResourceColumns+` from boot_resources order by id`)
}

// DeleteBootResource removes a resource with its sets and files; the blobs stay until they are swept.
func (tx *Tx) DeleteBootResource(id int64) error {
	return tx.one(`delete from boot_resources where id = $1`, id)
}

func scanBootResourceSet(r scanner) (s BootResourceSet, err error) {
	err = r.Scan(&s.ID, &s.ResourceID, &s.Version, &s.Label, scanTime(&s.Created))
	return s, err
}

// InsertBootResourceSet writes a new set and sets its ID.
func (tx *Tx) InsertBootResourceSet(s *BootResourceSet) error {
	s.Created = tx.Now()
	return tx.get([]any{&s.ID}, `insert into boot_resource_sets (resource_id, version, label, created) values ($1, $2, $3, $4) returning id`,
		s.ResourceID, s.Version, s.Label, s.Created)
}

// BootResourceSets returns the sets of resources, or of all when resourceIDs is nil, oldest first.
func (tx *Tx) BootResourceSets(resourceIDs []int64) ([]BootResourceSet, error) {
	return listByIDs(tx, scanBootResourceSet, resourceIDs, `select id, resource_id, version, label, created from boot_resource_sets`,
		`resource_id`, `order by id`)
}

// DeleteBootResourceSet removes a set and its files.
func (tx *Tx) DeleteBootResourceSet(id int64) error {
	return tx.one(`delete from boot_resource_sets where id = $1`, id)
}

const bootResourceFileColumns = `f.id, f.set_id, f.filename, f.filetype, f.sha256, f.size, f.uploaded, f.complete, f.extra, f.created`

func scanBootResourceFile(r scanner) (f BootResourceFile, err error) {
	err = r.Scan(&f.ID, &f.SetID, &f.Filename, &f.Filetype, &f.SHA256, &f.Size, &f.Uploaded, &f.Complete, scanJSON(&f.Extra),
		scanTime(&f.Created))
	return f, err
}

// InsertBootResourceFile writes a new file and sets its ID.
func (tx *Tx) InsertBootResourceFile(f *BootResourceFile) error {
	if len(f.Extra) == 0 {
		f.Extra = []byte("{}")
	}
	f.Created = tx.Now()
	return tx.get([]any{&f.ID}, `insert into boot_resource_files (set_id, filename, filetype, sha256, size, uploaded, complete, extra, created)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id`,
		f.SetID, f.Filename, f.Filetype, f.SHA256, f.Size, f.Uploaded, f.Complete, jsonArg(f.Extra, "{}"), f.Created)
}

// AdvanceUpload records how many bytes of a file have arrived. ErrStale: it is complete, gone, or somebody else sent a piece meanwhile.
func (tx *Tx) AdvanceUpload(id, from, to int64, complete bool) error {
	n, err := tx.Exec(`update boot_resource_files set uploaded = $3, complete = $4 where id = $1 and uploaded = $2 and complete = 0`,
		id, from, to, complete)
	if err == nil && n == 0 {
		err = ErrStale
	}
	return err
}

// BootResourceFile returns a file by id.
func (tx *Tx) BootResourceFile(id int64) (BootResourceFile, error) {
	return row(tx, scanBootResourceFile, `select `+bootResourceFileColumns+` from boot_resource_files f where f.id = $1`, id)
}

// BootResourceFiles returns the files of resources, or of all when resourceIDs is nil, by id.
func (tx *Tx) BootResourceFiles(resourceIDs []int64) ([]BootResourceFile, error) {
	return listByIDs(tx, scanBootResourceFile, resourceIDs,
		`select `+bootResourceFileColumns+` from boot_resource_files f join boot_resource_sets s on s.id = f.set_id`, `s.resource_id`, `order by f.id`)
}

// BootResourceFilesWith returns the files that name a blob.
func (tx *Tx) BootResourceFilesWith(sha256 string) ([]BootResourceFile, error) {
	return list(tx, scanBootResourceFile, `select `+bootResourceFileColumns+` from boot_resource_files f where f.sha256 = $1 order by f.id`, sha256)
}

// CompleteFile records that a file's content is stored. That the file is gone or complete already is no error.
func (tx *Tx) CompleteFile(id int64) error {
	_, err := tx.Exec(`update boot_resource_files set uploaded = size, complete = 1 where id = $1 and complete = 0`, id)
	return err
}

// SetOrigin records the boot source that an image comes from.
func (tx *Tx) SetOrigin(resourceID, sourceID int64) error {
	_, err := tx.Exec(`insert into boot_resource_origins (resource_id, source_id) values ($1, $2)
		on conflict (resource_id) do update set source_id = excluded.source_id`, resourceID, sourceID)
	return err
}

// Origins returns the boot sources of the images that came from one, by resource.
func (tx *Tx) Origins() (map[int64]int64, error) {
	out := map[int64]int64{}
	rows, err := tx.Query(`select resource_id, source_id from boot_resource_origins`)
	return out, eachRow(rows, err, func(r *sql.Rows) error {
		var resource, source int64
		err := r.Scan(&resource, &source)
		out[resource] = source
		return err
	})
}

// Kernel is a kernel that an image brings: in the newest complete version of a boot resource.
type Kernel struct {
	Name         string // ubuntu/noble
	Architecture string // amd64/hwe-24.04
	Extra        json.RawMessage
	FileExtra    json.RawMessage
}

// Kernels returns the kernels of the complete images, each resource's newest version only, by name and architecture.
func (tx *Tx) Kernels() ([]Kernel, error) {
	return list(tx, func(r scanner) (k Kernel, err error) {
		err = r.Scan(&k.Name, &k.Architecture, scanJSON(&k.Extra), scanJSON(&k.FileExtra))
		return k, err
	}, `select r.name, r.architecture, r.extra, f.extra from boot_resources r join boot_resource_sets s on s.resource_id = r.id
		join boot_resource_files f on f.set_id = s.id where f.filetype = 'boot-kernel' and r.name not like 'ingot/%'
		and s.id = (select max(n.id) from boot_resource_sets n where n.resource_id = r.id
			and not exists (select 1 from boot_resource_files o where o.set_id = n.id and o.complete = 0))
		order by r.name, r.architecture`)
}
