package bootsrv

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ingot-metal/ingot/api"
)

const (
	// cacheReportEvery is how often the region hears what the rack holds although nothing has changed: it may have forgotten.
	cacheReportEvery = 10 * time.Minute
	// cacheReportPause is the least time between two reports.
	cacheReportPause = time.Second
	// fetchesAhead is how many blobs are fetched at once when nobody waits for them.
	fetchesAhead = 2
)

// reportCache tells the region what the rack holds, whenever that changes.
func (r *Rack) reportCache(ctx context.Context) error {
	b := backoff{max: r.c.MaxBackoff}
	for ctx.Err() == nil {
		if r.store.loaded() {
			r.cache.tidy()
		}
		err := r.link.Load().holds(ctx, api.RackCache{Contents: r.cache.held(), Shared: r.c.Blobs != nil})
		if err != nil {
			if ctx.Err() == nil {
				r.c.Log.Debug("cache not reported", "error", err)
			}
			_ = b.wait(ctx)
			continue
		}
		b.reset()
		if pause(ctx, cacheReportPause) != nil {
			break
		}
		t := time.NewTimer(cacheReportEvery)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-r.cache.changed:
		}
		t.Stop()
	}
	return ctx.Err()
}

// fetchImages brings all content of the snapshot into the cache, as much of it as fits: what it would have to drop for the rest is no less
// wanted than that.
func (r *Rack) fetchImages(ctx context.Context) (out api.ImagesResult) {
	if r.c.Blobs != nil {
		return out // it is all there
	}
	contents := slices.Clone(r.holder.View().Snapshot.Contents)
	var room, missing int64 = r.c.CacheBytes, 0
	var fetch []string
	for _, c := range contents {
		sha := strings.ToLower(c.SHA256)
		if room < c.Size {
			missing += c.Size
			continue
		}
		room -= c.Size
		if !r.cache.has(sha) {
			fetch = append(fetch, sha)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchesAhead)
	for _, sha := range fetch {
		g.Go(func() error { return r.Prefetch(gctx, sha) })
	}
	switch err := g.Wait(); {
	case err != nil:
		out.Error = "Images not fetched: " + err.Error()
	case missing > 0:
		out.Error = fmt.Sprintf("The cache of the rack is too small to hold all images: %d bytes do not fit into its %d. Start the rack with a larger --cache-bytes.", missing, r.c.CacheBytes)
	}
	for _, sha := range fetch {
		if r.cache.has(sha) {
			out.Fetched++
		}
	}
	return out
}
