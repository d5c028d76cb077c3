// Command storm watches ConfigMaps with a shared informer of client-go, all settings as they come (protobuf requests,
// WatchList), while writers of the same client change them; it fails unless the informer was told every change exactly
// once and in order. The server may be restarted meanwhile: the writers try again, the informer resumes.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const namespace = "storm"

var (
	kubeconfig = flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "of the server")
	writers    = flag.Int("writers", 16, "objects that are changed at the same time")
	changes    = flag.Int("changes", 200, "changes of each object: a creation, updates, a deletion each 50 changes")
	late       = flag.Int("late", 3, "further informers that begin in the middle of the storm and must agree at its end")
)

// seen is what an informer was told of one object: versions in order, a deletion as the negative of its last version.
type seen struct {
	sync.Mutex
	of map[string][]int
}

func (s *seen) add(object *core.ConfigMap, deleted bool) {
	n, err := strconv.Atoi(object.Data["n"])
	if err != nil {
		return // kube-root-ca.crt and its like
	}
	if deleted {
		n = -n
	}
	s.Lock()
	defer s.Unlock()
	s.of[object.Name] = append(s.of[object.Name], n)
}

func watch(ctx context.Context, client kubernetes.Interface) (*seen, cache.SharedIndexInformer) {
	told := &seen{of: map[string][]int{}}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { told.add(o.(*core.ConfigMap), false) },
		UpdateFunc: func(before, after any) {
			if before.(*core.ConfigMap).ResourceVersion != after.(*core.ConfigMap).ResourceVersion {
				told.add(after.(*core.ConfigMap), false)
			}
		},
		DeleteFunc: func(o any) {
			if gone, unknown := o.(cache.DeletedFinalStateUnknown); unknown {
				fail("a deletion was not seen but inferred: %s", gone.Key)
			}
			told.add(o.(*core.ConfigMap), true)
		},
	})
	check(err)
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		fail("the informer does not get in step")
	}
	return told, informer
}

// again calls until the answer is not of a server that is away.
func again(what string, retried *atomic.Int64, call func() error) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := call()
		switch {
		case err == nil, errors.IsNotFound(err), errors.IsAlreadyExists(err), errors.IsConflict(err):
			return err
		case time.Now().After(deadline):
			fail("%s: %v", what, err)
		}
		retried.Add(1)
		time.Sleep(20 * time.Millisecond)
	}
}

// write changes one object and returns what an informer must be told.
func write(client kubernetes.Interface, name string, retried *atomic.Int64) []int {
	ctx := context.Background()
	api := client.CoreV1().ConfigMaps(namespace)
	var expected []int
	exists := false
	for n := 1; n <= *changes; n++ {
		value := strconv.Itoa(n)
		switch {
		case !exists:
			object := &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: name}, Data: map[string]string{"n": value}}
			err := again("create", retried, func() error {
				_, err := api.Create(ctx, object, meta.CreateOptions{})
				return err
			})
			// It was made by the try before, whose answer was lost.
			if err != nil && !errors.IsAlreadyExists(err) {
				fail("create %s: %v", name, err)
			}
			exists = true
			expected = append(expected, n)
		case n%50 == 0:
			err := again("delete", retried, func() error { return api.Delete(ctx, name, meta.DeleteOptions{}) })
			if err != nil && !errors.IsNotFound(err) {
				fail("delete %s: %v", name, err)
			}
			exists = false
			expected = append(expected, -expected[len(expected)-1])
		case n%3 == 0:
			patch := []byte(`{"data":{"n":"` + value + `"}}`)
			check(again("patch", retried, func() error {
				_, err := api.Patch(ctx, name, types.StrategicMergePatchType, patch, meta.PatchOptions{})
				return err
			}))
			expected = append(expected, n)
		default:
			check(again("update", retried, func() error {
				object, err := api.Get(ctx, name, meta.GetOptions{})
				if err != nil || object.Data["n"] == value {
					return err
				}
				object.Data["n"] = value
				_, err = api.Update(ctx, object, meta.UpdateOptions{})
				return err
			}))
			expected = append(expected, n)
		}
	}
	return expected
}

func main() {
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	check(err)
	config.QPS, config.Burst = 10000, 10000
	client, err := kubernetes.NewForConfig(config)
	check(err)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	space := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: namespace}}
	_, err = client.CoreV1().Namespaces().Create(ctx, space, meta.CreateOptions{})
	check(err)

	told, informer := watch(ctx, client)
	fmt.Println("watching")
	start := time.Now()
	expected := make([][]int, *writers)
	var retried atomic.Int64
	var all sync.WaitGroup
	for w := range *writers {
		all.Go(func() { expected[w] = write(client, name(w), &retried) })
	}
	var others []cache.SharedIndexInformer
	for range *late {
		time.Sleep(time.Second)
		_, other := watch(ctx, client)
		others = append(others, other)
	}
	all.Wait()
	took := time.Since(start)

	total := 0
	for w, want := range expected {
		total += len(want)
		if !within(time.Minute, func() bool {
			told.Lock()
			defer told.Unlock()
			return len(told.of[name(w)]) >= len(want)
		}) {
			told.Lock()
			fail("%s: %s", name(w), difference(want, told.of[name(w)]))
		}
	}
	time.Sleep(500 * time.Millisecond) // for what comes once too often
	told.Lock()
	defer told.Unlock()
	for w, want := range expected {
		if got := told.of[name(w)]; fmt.Sprint(got) != fmt.Sprint(want) {
			fail("%s: %s", name(w), difference(want, got))
		}
	}
	for _, other := range others {
		wait("a late informer agrees", func() bool { return same(informer, other) })
	}
	fmt.Printf("%d changes by %d writers in %.1f s, %d requests tried again, %d informers agree\n",
		total, *writers, took.Seconds(), retried.Load(), 1+len(others))
}

func same(a, b cache.SharedIndexInformer) bool {
	if len(a.GetStore().ListKeys()) != len(b.GetStore().ListKeys()) {
		return false
	}
	for _, one := range a.GetStore().List() {
		other, exists, _ := b.GetStore().Get(one)
		if !exists || other.(*core.ConfigMap).ResourceVersion != one.(*core.ConfigMap).ResourceVersion {
			return false
		}
	}
	return true
}

func wait(what string, done func() bool) {
	if !within(time.Minute, done) {
		fail("%s: not within a minute", what)
	}
}

func within(limit time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(limit); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// difference says where what was told leaves what was done; a deletion is the negative of its last version.
func difference(want, got []int) string {
	at := 0
	for at < len(want) && at < len(got) && want[at] == got[at] {
		at++
	}
	return fmt.Sprintf("%d of %d changes were told; from number %d on the informer was told %v, but it was %v",
		len(got), len(want), at, got[at:min(at+8, len(got))], want[at:min(at+8, len(want))])
}

func name(w int) string { return fmt.Sprintf("object-%d", w) }

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
