package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/storage"
)

// Which rack holds which image. A rack fetches content when a machine asks for it, or all of it when somebody orders that, and says what
// it holds whenever that changes.

// maxRackContents bounds what a rack may say that it holds.
const maxRackContents = 20_000

func rackQueue(rackID int64) string { return fmt.Sprintf("rack:%d", rackID) }

// RecordRackCache takes in what a rack holds.
func (s *Service) RecordRackCache(ctx context.Context, rack storage.Node, in api.RackCache) error {
	if len(in.Contents) > maxRackContents || slices.ContainsFunc(in.Contents, func(sha string) bool { return !content.ValidDigest(sha) }) {
		return Errorf(Invalid, "A rack holds at most %d contents, each named by its SHA-256 digest.", maxRackContents)
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		return tx.SetRackCache(storage.RackCache{RackID: rack.ID, Contents: in.Contents, Shared: in.Shared})
	})
}

// FetchImages has racks fetch all images ahead of the machines that will ask for them: one rack, or all when systemID is empty.
func (s *Service) FetchImages(ctx context.Context, systemID string) error {
	if _, err := needPermission(ctx, "can_edit_controllers"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		racks, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeRack, storage.NodeRegionRack}})
		if err != nil {
			return err
		}
		caches, err := tx.RackCaches()
		if err != nil {
			return err
		}
		found := false
		for _, n := range racks {
			if systemID != "" && n.SystemID != systemID {
				continue
			}
			found = true
			if caches[n.ID].Shared {
				continue // it reads the region's store
			}
			key := "images:" + n.SystemID
			if _, err := tx.EnqueueJob(storage.Job{Kind: api.JobImages, Queue: rackQueue(n.ID), UniqueKey: &key, NodeID: &n.ID}); err != nil {
				return err
			}
		}
		if systemID != "" && !found {
			return errNoRack
		}
		return nil
	})
}

// finishImages records the end of a rack's attempt to fetch all images.
func (s *Service) finishImages(ctx context.Context, rackSystemID string, id, attempt int64, r api.ImagesResult) error {
	r.Error = firstRunes(strings.ToValidUTF8(r.Error, "\uFFFD"), 2000)
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.DB.Write(WithActor(ctx, SystemActor()), func(tx *storage.Tx) error {
		if err := s.holds(tx, rackSystemID, id, attempt); err != nil {
			return err
		}
		j, err := tx.Job(id)
		if err != nil {
			return err
		}
		if j.Kind != api.JobImages {
			return Errorf(Invalid, "The job is none that fetches images.")
		}
		state := storage.JobDone
		if r.Error != "" {
			state = storage.JobRetry
		}
		if j, err = tx.FinishJob(id, attempt, state, doc, r.Error); err != nil || j.State != storage.JobFailed {
			return err
		}
		n, err := tx.Node(rackSystemID)
		if err != nil {
			return err
		}
		return tx.InsertEvent(&storage.Event{NodeID: &n.ID, NodeHostname: n.Hostname, SystemID: n.SystemID, Type: "RACK_IMPORT_ERROR", Level: levelError, Description: r.Error})
	})
}

// RackImageList is which images a rack holds.
type RackImageList struct {
	Images []BootImage
	// Status is synced when it holds all that there are, syncing while it is fetching them, and out-of-sync else.
	Status    string
	Connected bool
}

// RackImages are the images that a rack holds whole, each in its newest version.
func (s *Service) RackImages(ctx context.Context, systemID string) (out RackImageList, err error) {
	if _, err := needPermission(ctx, "can_view_controllers"); err != nil {
		return out, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeRack && n.NodeType != storage.NodeRegionRack {
			return errNoRack
		}
		if err != nil {
			return err
		}
		files, err := tx.ImageFiles()
		if err != nil {
			return err
		}
		caches, err := tx.RackCaches()
		if err != nil {
			return err
		}
		busy, err := tx.Jobs(storage.JobFilter{Kind: api.JobImages, Queues: []string{rackQueue(n.ID)}, States: []string{storage.JobReady, storage.JobRunning}, Limit: 1})
		if err != nil {
			return err
		}
		out = rackImages(files, caches[n.ID])
		if len(busy) > 0 && out.Status != "synced" {
			out.Status = "syncing"
		}
		out.Connected = tx.Now().Sub(n.LastSeen) < rackAway
		return nil
	})
	return out, err
}

func rackImages(files []storage.ImageFile, cache storage.RackCache) RackImageList {
	held := map[string]bool{}
	for _, sha := range cache.Contents {
		held[sha] = true
	}
	type image struct{ name, architecture string }
	var order []image
	lacks := map[image]bool{}
	for _, f := range files {
		k := image{f.Name, f.Architecture}
		if _, ok := lacks[k]; !ok {
			order = append(order, k)
		}
		lacks[k] = lacks[k] || !cache.Shared && !held[f.SHA256]
	}
	out := RackImageList{Images: []BootImage{}, Status: "synced"}
	at := map[image]int{}
	for _, k := range order {
		if lacks[k] {
			out.Status = "out-of-sync"
			continue
		}
		arch, sub, _ := strings.Cut(k.architecture, "/")
		i, ok := at[image{k.name, arch}]
		if !ok {
			i = len(out.Images)
			at[image{k.name, arch}] = i
			out.Images = append(out.Images, BootImage{Name: k.name, Architecture: arch, Subarches: []string{}})
		}
		out.Images[i].Subarches = append(out.Images[i].Subarches, sub)
	}
	return out
}
