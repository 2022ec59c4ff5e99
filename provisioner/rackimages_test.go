package provisioner

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// What a rack says that it holds is what the API says, and a rack that is told to fetch all is syncing until it has.
func TestRackImages(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, ctx := imageService(t, db, t.TempDir()), adminCtx(t)
		var digests []string
		for _, name := range []string{"custom/a", "custom/b"} {
			data := []byte("content of " + name)
			v, f := announce(t, s, ImageInput{Name: name, Architecture: "amd64/generic", SHA256: shaOf(data), Size: int64(len(data))})
			if err := s.UploadChunk(ctx, v.ID, f.ID, strings.NewReader(string(data))); err != nil {
				t.Fatal(err)
			}
			digests = append(digests, f.SHA256)
		}
		rack, err := s.RegisterRack(ctx, api.RackHello{Hostname: "rack", Architecture: "amd64", Interfaces: []api.RackInterface{}}, storage.NodeRack, "")
		if err != nil {
			t.Fatal(err)
		}
		want := func(status string, names ...string) {
			t.Helper()
			l, err := s.RackImages(ctx, rack.SystemID)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range l.Images {
				got = append(got, fmt.Sprint(i.Name, i.Architecture, i.Subarches))
			}
			if l.Status != status || !slices.Equal(got, names) || !l.Connected {
				t.Errorf("%q %+v, want %s %q", got, l, status, names)
			}
		}
		say := func(c api.RackCache) {
			t.Helper()
			if err := s.RecordRackCache(ctx, rack, c); err != nil {
				t.Fatal(err)
			}
		}
		want("out-of-sync")
		say(api.RackCache{Contents: digests[1:]})
		want("out-of-sync", "custom/bamd64[generic]")
		if err := s.FetchImages(ctx, rack.SystemID); err != nil {
			t.Fatal(err)
		}
		if err := s.FetchImages(ctx, ""); err != nil { // once is enough
			t.Fatal(err)
		}
		want("syncing", "custom/bamd64[generic]")
		jobs, _, err := s.ClaimRackJobs(ctx, rack.SystemID, 5)
		if err != nil || len(jobs) != 1 || jobs[0].Kind != api.JobImages || jobs[0].Images == nil {
			t.Fatalf("jobs %+v, %v", jobs, err)
		}
		say(api.RackCache{Contents: digests})
		want("synced", "custom/aamd64[generic]", "custom/bamd64[generic]")
		if err := s.FinishRackJob(ctx, rack.SystemID, jobs[0].ID, api.JobResult{Attempt: jobs[0].Attempt, Images: &api.ImagesResult{Fetched: 1}}); err != nil {
			t.Fatal(err)
		}
		say(api.RackCache{Contents: []string{}})
		want("out-of-sync")
		say(api.RackCache{Shared: true, Contents: []string{}})
		want("synced", "custom/aamd64[generic]", "custom/bamd64[generic]")

		refused(t, s.FetchImages(ctx, "nobody"), NotFound, "No RackController matches")
		refused(t, s.RecordRackCache(ctx, rack, api.RackCache{Contents: []string{"../x"}}), Invalid, "SHA-256")
		refused(t, s.RecordRackCache(ctx, rack, api.RackCache{Contents: slices.Repeat(digests[:1], maxRackContents+1)}), Invalid, "at most")
		other := storage.Job{Kind: api.JobScan, Queue: rackQueue(rack.ID), Args: json.RawMessage(`{"vlan_id": 1, "cidrs": []}`)}
		if err := db.Write(ctx, func(tx *storage.Tx) (err error) { other, err = tx.EnqueueJob(other); return err }); err != nil {
			t.Fatal(err)
		}
		if jobs, _, err = s.ClaimRackJobs(ctx, rack.SystemID, 5); err != nil || len(jobs) != 1 {
			t.Fatalf("jobs %+v, %v", jobs, err)
		}
		refused(t, s.FinishRackJob(ctx, rack.SystemID, other.ID, api.JobResult{Attempt: 1, Images: &api.ImagesResult{}}), Invalid, "none that fetches images")
	})
}
