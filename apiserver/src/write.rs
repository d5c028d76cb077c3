//! The one way an object changes: read, change, admit, validate, compare-and-swap; again when somebody was faster.
//! Source: apiserver `pkg/registry/generic/registry/store.go`, `pkg/registry/rest/{create,update}.go`,
//! `pkg/storage/etcd3/store.go` (GuaranteedUpdate).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_merge::managed::keep_times;
use corten_schema::defaults;
use corten_store::{KeyValue, LeaseId, Put, Revision, StoreError, Swap};
use http::StatusCode;
use serde_json::Value;

use crate::api::Api;
use crate::auth::{Attributes, Decision};
use crate::deletion;
use crate::fresh;
use crate::hooks::{Operation, Review};
use crate::kinds::{Preparing, convert, services};
use crate::meta;
use crate::object::{self, Object};
use crate::registry::Served;
use crate::request::{Answer, Call, WriteOptions};
use crate::status::{Cause, Details, Result, Status};
use crate::stored::Form;
use crate::subresources::approval;

/// New names are tried so often before a client is told that all are taken.
const NAMES: usize = 8;

/// What is being written, for whom.
pub struct Writing<'a> {
    pub api: &'a Arc<Api>,
    pub call: &'a Call,
    pub served: &'a Arc<Served>,
    /// Empty: the object by its main path.
    pub subresource: &'a str,
    /// Empty of a kind that is in none.
    pub namespace: &'a str,
    /// Empty where the object says it.
    pub name: &'a str,
    pub options: &'a WriteOptions,
}

/// Which rules a change follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The main path, also of subresources that stand for a part of it (`scale`).
    Main,
    /// A subresource that is the object, of which it may change a part.
    Part,
    /// The server's own change (`binding`): neither prepared nor validated.
    Own,
}

/// What a change asks for.
pub struct Change {
    pub path: Path,
    /// An object that is not there is made.
    pub create: bool,
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only this version.
    pub resource_version: Option<String>,
    /// Field managers are told; not where the change has done it (apply).
    pub track: bool,
    /// Admission is asked.
    pub admit: bool,
}

impl Change {
    pub fn of(path: Path) -> Self {
        Self { path, create: false, uid: None, resource_version: None, track: true, admit: true }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Written {
    /// As it is served, with its resourceVersion.
    pub object: Object,
    /// The same as JSON.
    pub bytes: Bytes,
    pub created: bool,
}

impl Written {
    pub fn answer(self, served: &Arc<Served>) -> Answer {
        let code = if self.created { StatusCode::CREATED } else { StatusCode::OK };
        Answer::Object { code, bytes: self.bytes, served: Some(Arc::clone(served)) }
    }
}

impl Writing<'_> {
    fn key(&self, name: &str) -> Vec<u8> {
        self.served.key(self.namespace, name)
    }

    /// # Errors
    /// The store's.
    pub async fn read(&self, name: &str) -> Result<Option<Arc<KeyValue>>> {
        Ok(self.api.store.get(&self.key(name), None).await.map_err(|error| failed(&error))?.kv)
    }

    /// # Errors
    /// 404, and the store's.
    pub async fn object(&self) -> Result<Object> {
        let kv = self.read(self.name).await?;
        let kv = kv.ok_or_else(|| Status::not_found(&self.served.resource, self.name))?;
        Form::of(self.served).object(&kv, kv.mod_revision)
    }

    /// Makes a new object, which says its name or how it begins.
    ///
    /// # Errors
    /// 403, 404 of admission, 409 when there is one, 422.
    pub async fn create(&self, object: Object) -> Result<Written> {
        let mut object = object;
        self.dedup_owners(&mut object, false);
        let manager = self.manager();
        object = crate::managed::updated(
            &self.api.registry,
            self.served,
            self.subresource,
            None,
            object,
            &manager,
        );
        object = self.admit(Operation::Create, object, None).await?;
        self.dedup_owners(&mut object, true);
        let generated = object.name().is_empty() && !object.generate_name().is_empty();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut one = object.clone();
            if generated {
                let name = fresh::name(one.generate_name());
                one.set_meta("name", name);
            }
            match self.insert(one).await {
                Err(status) if generated && status.reason() == "AlreadyExists" && attempt < NAMES => {}
                Err(status) if generated && status.reason() == "AlreadyExists" => {
                    let message = format!(
                        "{}, the server was not able to generate a unique name for the object",
                        status.message()
                    );
                    let details =
                        Details { retry_after: Some(Duration::from_secs(1)), ..status.details().clone() };
                    return Err(Status::new(status.code(), "AlreadyExists", message).with(details));
                }
                other => return other,
            }
        }
    }

    /// A new object after admission.
    async fn insert(&self, mut object: Object) -> Result<Written> {
        let resource = &self.served.resource;
        let now = fresh::now();
        self.to_stored(&mut object);
        object.set_meta("uid", fresh::uid());
        object.set_meta("creationTimestamp", now.as_str());
        object.meta_mut().remove("selfLink");
        let allocation = self.allocate(&mut object, None).await?;
        self.prepare_create(&mut object, &now)?;
        if !matches!(object.resource_version(), "" | "0") {
            const MESSAGE: &str = "resourceVersion should not be set on objects to be created";
            return Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", MESSAGE));
        }
        let name = object.name().to_owned();
        self.complete(&mut object);
        let bytes = object.encode();
        if self.options.dry_run {
            if self.read(&name).await?.is_some() {
                return Err(Status::already_exists(resource, &name));
            }
            object.meta_mut().remove("resourceVersion");
            return self.answer(object, None, true);
        }
        let lease = self.lease().await?;
        let put = Put::create(self.key(&name), bytes.clone()).lease(lease);
        match self.api.store.put(put).await.map_err(|error| failed(&error))? {
            Swap::Done(revision) => {
                if let Some(allocation) = allocation {
                    allocation.keep(&object);
                }
                self.answer(object, Some((bytes, revision)), true)
            }
            Swap::Changed { current, .. } => Err(self.exists(&name, current.as_deref())),
        }
    }

    /// In the version that it is stored in, which is the one that rules are about.
    fn to_stored(&self, object: &mut Object) {
        let resource = &self.served.resource;
        let stored = match &*resource.stored.0 {
            "" => resource.stored.1.to_string(),
            group => format!("{group}/{}", resource.stored.1),
        };
        if object.api_version() != stored {
            convert::convert(object, &stored);
            (self.served.kind.default)(object);
        }
    }

    /// Upstream writes a status that says nothing where its type is no pointer.
    fn default_status(&self, object: &mut Object) {
        let default = self.served.node().field("status").and_then(|field| field.default.as_deref());
        let (Some(default), Some(node)) = (default, self.served.node().child("status")) else { return };
        if !self.served.is_custom() && !object.0.contains_key("status") {
            let mut status = serde_json::from_str(default).unwrap_or(Value::Null);
            defaults::apply(node, &mut status);
            object.0.insert("status".to_owned(), status);
        }
    }

    /// The last step before an object is stored: the empty values that Go writes for fields that are no pointers.
    fn complete(&self, object: &mut Object) {
        if self.served.is_custom() {
            return;
        }
        let stored = corten_schema::builtin().of_api_version(object.api_version(), object.kind());
        if let Some(node) = stored {
            let mut whole = Value::Object(std::mem::take(&mut object.0));
            defaults::finish(node, &mut whole);
            *object = Object::of(whole).unwrap_or_default();
        }
    }

    fn prepare_create(&self, object: &mut Object, now: &str) -> Result<()> {
        let (kind, resource) = (self.served.kind, &self.served.resource);
        meta::take_namespace(object, if resource.namespaced { self.namespace } else { "" })?;
        object.meta_mut().remove("generation");
        if self.keeps_status_apart() && !keeps_first_status(self.served) {
            object.0.remove("status");
        }
        if self.counts_generations() {
            object.set_meta("generation", 1);
        }
        (kind.prepare_create)(object, &Preparing { user: &self.call.user, now });
        self.default_status(object);
        meta::tidy(object);
        let mut causes = meta::validate(object, resource, kind.name);
        causes.extend(self.served.validate(object, None));
        self.refuse(object.name(), causes)?;
        (kind.warn)(object).into_iter().for_each(|warning| self.call.warn(warning));
        Ok(())
    }

    /// Changes an object until the change holds. `change`: the object as it is (`None`: there is none, only where
    /// [`Change::create`]) to what it shall be, as it is served; asked again whenever somebody else was faster.
    ///
    /// # Errors
    /// What `change` says; 404; 409 where it changes another version than there is; 422; of admission.
    pub async fn update<F>(&self, asked: &Change, mut change: F) -> Result<Written>
    where
        F: FnMut(Option<&Object>) -> Result<Object> + Send,
    {
        let resource = &self.served.resource;
        loop {
            let Some(kv) = self.read(self.name).await? else {
                if !asked.create {
                    return Err(Status::not_found(resource, self.name));
                }
                self.precondition("UID", asked.uid.as_deref(), "")?;
                match self.create_by_update(asked, change(None)?).await {
                    Err(status) if status.reason() == "AlreadyExists" => continue,
                    other => return other,
                }
            };
            let old = Form::of(self.served).object(&kv, kv.mod_revision)?;
            self.precondition("UID", asked.uid.as_deref(), old.uid())?;
            self.precondition("ResourceVersion", asked.resource_version.as_deref(), old.resource_version())?;
            let mut new = change(Some(&old))?;
            if asked.track {
                let manager = self.manager();
                new = crate::managed::updated(
                    &self.api.registry,
                    self.served,
                    self.subresource,
                    Some(&old),
                    new,
                    &manager,
                );
            }
            if asked.admit {
                new = self.admit(Operation::Update, new, Some(&old)).await?;
                self.dedup_owners(&mut new, true);
            }
            self.check_version(&mut new, &old)?;
            let mut old = old;
            self.to_stored(&mut old);
            self.to_stored(&mut new);
            let allocation = match asked.path {
                Path::Own | Path::Part => None,
                Path::Main => self.allocate(&mut new, Some(&old)).await?,
            };
            self.prepare_update(asked.path, &mut new, &old)?;
            if asked.path != Path::Own && deletion::done_by_update(&new, &old) {
                if self.remove(&kv).await? {
                    return self.answer(new, None, false);
                }
                continue;
            }
            self.complete(&mut new);
            let bytes = new.encode();
            if bytes == kv.value || same(&bytes, &kv.value) {
                return self.answer(new, Some((kv.value.clone(), kv.mod_revision)), false);
            }
            if self.options.dry_run {
                return self.answer(new, None, false);
            }
            let lease = self.lease().await?.or(kv.lease);
            let put = Put::update(kv.key.clone(), bytes.clone(), kv.mod_revision).lease(lease);
            match self.api.store.put(put).await.map_err(|error| failed(&error))? {
                Swap::Done(revision) => {
                    if let Some(allocation) = allocation {
                        allocation.keep(&new);
                    }
                    return self.answer(new, Some((bytes, revision)), false);
                }
                Swap::Changed { .. } => {}
            }
        }
    }

    /// An update or an apply of what is not there yet: whoever asks must be allowed to create it.
    async fn create_by_update(&self, asked: &Change, mut object: Object) -> Result<Written> {
        self.may_create().await?;
        meta::wipe(&mut object);
        object.meta_mut().remove("resourceVersion");
        if asked.track {
            let manager = self.manager();
            object = crate::managed::updated(
                &self.api.registry,
                self.served,
                self.subresource,
                None,
                object,
                &manager,
            );
        }
        object = self.admit(Operation::Create, object, None).await?;
        self.dedup_owners(&mut object, true);
        self.insert(object).await
    }

    async fn may_create(&self) -> Result<()> {
        let (info, resource) = (&self.call.info, &self.served.resource);
        let attributes = Attributes {
            verb: "create".to_owned(),
            resource: resource.plural.to_string(),
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            subresource: self.subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            path: info.path.clone(),
            field_selector: String::new(),
        };
        match self.api.authorizer.authorize(&self.call.user, &attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                Err(crate::http::forbidden(&self.call.user, &attributes, &why))
            }
        }
    }

    /// An update is of the version that it says, of any where it says none and the kind allows that.
    fn check_version(&self, new: &mut Object, old: &Object) -> Result<()> {
        let resource = &self.served.resource;
        match new.resource_version() {
            "" | "0" if self.served.kind.unconditional_update => {
                new.set_meta("resourceVersion", old.resource_version());
                Ok(())
            }
            "" | "0" => {
                let cause =
                    Cause::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
                let details = Details {
                    group: resource.group.to_string(),
                    kind: resource.plural.to_string(),
                    name: self.name.to_owned(),
                    causes: vec![cause.clone()],
                    ..Details::default()
                };
                let message = format!("{} \"{}\" is invalid: {cause}", resource.group_resource(), self.name);
                Err(Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details))
            }
            same if same == old.resource_version() => Ok(()),
            other if other.parse::<u64>().is_err() => {
                let message = format!("strconv.ParseUint: parsing {}: invalid syntax", Value::from(other));
                Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message))
            }
            _ => Err(Status::modified(resource, self.name)),
        }
    }

    fn prepare_update(&self, path: Path, new: &mut Object, old: &Object) -> Result<()> {
        let (kind, resource) = (self.served.kind, &self.served.resource);
        let now = fresh::now();
        let preparing = Preparing { user: &self.call.user, now: &now };
        meta::take_namespace(new, if resource.namespaced { self.namespace } else { "" })?;
        meta::keep(new, old);
        if path == Path::Own {
            meta::tidy(new);
            return Ok(());
        }
        let part = if path == Path::Part { self.subresource } else { "" };
        match part {
            "" if self.keeps_status_apart() => take(new, old, |key| key == "status"),
            "status" => {
                take(new, old, |key| !matches!(key, "kind" | "apiVersion" | "metadata" | "status"));
                if self.served.is_custom() {
                    keep_metadata(new, old);
                }
            }
            _ => {}
        }
        if let ("certificates.k8s.io", "approval" | "status") = (&*resource.group, part) {
            approval::prepare(part, new, old, &now);
        }
        if part.is_empty() {
            (kind.prepare_update)(new, old, &preparing);
        } else {
            (kind.prepare_subresource)(part, new, old, &preparing);
        }
        self.default_status(new);
        meta::tidy(new);
        let counts = || !same_spec(new, old, self.keeps_status_apart()) || (kind.also_counts)(new, old);
        if self.counts_generations() && part != "status" && counts() {
            new.set_meta("generation", old.generation() + 1);
        }
        let mut causes = meta::validate_update(new, old, resource, kind.name);
        if part.is_empty() {
            if self.served.is_custom() {
                causes.extend(self.served.validate(new, Some(old)));
            }
            causes.extend((kind.validate_update)(new, old));
        } else {
            if self.served.is_custom() {
                causes.extend(self.served.validate(new, Some(old)));
            }
            causes.extend((kind.validate_subresource)(part, new, old));
        }
        let mut once: Vec<Cause> = Vec::with_capacity(causes.len());
        for cause in causes {
            if !once.contains(&cause) {
                once.push(cause);
            }
        }
        self.refuse(new.name(), once)?;
        if part.is_empty() {
            (kind.warn)(new).into_iter().for_each(|warning| self.call.warn(warning));
        }
        // Times alone are no change.
        keep_times(&old.0, &mut new.0);
        Ok(())
    }

    async fn admit(&self, operation: Operation, object: Object, old: Option<&Object>) -> Result<Object> {
        let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
        let review = self.review(operation, Some(object), old.cloned(), self.options.to_json(kind));
        Ok(self.ask(review).await?.object.unwrap_or_default())
    }

    /// A change before it is made, for admission.
    pub fn review(
        &self,
        operation: Operation,
        object: Option<Object>,
        old: Option<Object>,
        options: Value,
    ) -> Review {
        Review {
            user: self.call.user.clone(),
            operation,
            served: Arc::clone(self.served),
            subresource: self.subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            object,
            old,
            dry_run: self.options.dry_run,
            options,
            warnings: Vec::new(),
        }
    }

    /// # Errors
    /// Of the plugin that refuses.
    pub async fn ask(&self, mut review: Review) -> Result<Review> {
        let admitted = self.api.admission.admit(self.api, &mut review).await;
        review.warnings.drain(..).for_each(|warning| self.call.warn(warning));
        admitted.map(|()| review)
    }

    /// Deletes what is still as it was read; `false`: it is not.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove(&self, kv: &KeyValue) -> Result<bool> {
        if self.options.dry_run {
            return Ok(true);
        }
        let swap = self.api.store.delete(&kv.key, kv.mod_revision).await.map_err(|error| failed(&error))?;
        if let (Swap::Done(_), Ok(object)) = (&swap, Object::at_rest(kv)) {
            self.release(&object).await;
        }
        Ok(match swap {
            Swap::Done(_) => true,
            // Somebody else deleted it: done as well.
            Swap::Changed { current, .. } => current.is_none(),
        })
    }

    /// What a deleted object was given can be given to others.
    pub async fn release(&self, object: &Object) {
        if self.served.kind.allocates
            && let Ok(allocator) = self.allocator().await
        {
            allocator.release(object);
        }
    }

    async fn allocator(&self) -> Result<&services::Allocator> {
        let made = self.api.services.get(&*self.api.store, &self.served.prefix("")).await;
        made.map_err(|error| failed(&error))
    }

    /// Gives an object the addresses and ports that its kind needs, before it is validated. They fall back unless the
    /// object is written.
    async fn allocate(
        &self,
        new: &mut Object,
        old: Option<&Object>,
    ) -> Result<Option<services::Allocation<'_>>> {
        if !self.served.kind.allocates {
            return Ok(None);
        }
        let given = self.allocator().await?.allocate(new, old, self.options.dry_run);
        given.map(Some).map_err(|refusal| match refusal {
            services::Refusal::Invalid(causes) => Status::invalid(&self.served.resource, new.name(), causes),
            services::Refusal::Full(why) => Status::internal(why),
        })
    }

    /// # Errors
    /// 409: there is another one than was meant.
    pub fn precondition(&self, what: &str, wanted: Option<&str>, has: &str) -> Result<()> {
        match wanted {
            Some(wanted) if wanted != has => {
                let key = String::from_utf8_lossy(&self.key(self.name)).into_owned();
                let why = format!(
                    "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {has}"
                );
                Err(Status::conflict(&self.served.resource, self.name, why))
            }
            _ => Ok(()),
        }
    }

    pub fn manager(&self) -> String {
        if self.options.manager.is_empty() {
            meta::manager_of(self.call.user_agent())
        } else {
            self.options.manager.clone()
        }
    }

    /// Owners that are there twice are there once, which the client is told.
    pub fn dedup_owners(&self, object: &mut Object, admitted: bool) {
        let twice = meta::dedup_owners(object);
        if !twice.is_empty() {
            let when = if admitted { " after mutating admission happens" } else { "" };
            let uids = twice.join(", ");
            self.call.warn(format!(
                ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
            ));
        }
    }

    fn refuse(&self, name: &str, causes: Vec<Cause>) -> Result<()> {
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid(&self.served.resource, name, causes)) }
    }

    fn exists(&self, name: &str, current: Option<&KeyValue>) -> Status {
        let status = Status::already_exists(&self.served.resource, name);
        let dying = current
            .and_then(|kv| Form::of(self.served).object(kv, kv.mod_revision).ok())
            .is_some_and(|object| object.deletion_timestamp().is_some());
        if !dying {
            return status;
        }
        let message = format!("object is being deleted: {}", status.message());
        Status::new(status.code(), "AlreadyExists", message).with(status.details().clone())
    }

    fn keeps_status_apart(&self) -> bool {
        self.served.resource.subresource("status").is_some()
    }

    fn counts_generations(&self) -> bool {
        self.served.kind.counts_generations || self.served.is_custom()
    }

    async fn lease(&self) -> Result<Option<LeaseId>> {
        match self.served.kind.ttl {
            Some(_) if !self.options.dry_run => {
                let ttl = self.api.config.event_ttl;
                self.api.leases.get(&*self.api.store, ttl).await.map(Some).map_err(|error| failed(&error))
            }
            _ => Ok(None),
        }
    }

    /// `stored`: the record, unless nothing was written.
    fn answer(
        &self,
        mut object: Object,
        stored: Option<(Bytes, Revision)>,
        created: bool,
    ) -> Result<Written> {
        let api_version = self.served.resource.api_version();
        let converted = object.api_version() != api_version;
        if converted {
            convert::convert(&mut object, &api_version);
        }
        if let Some((_, revision)) = &stored {
            object.set_revision(*revision);
        }
        let bytes = match stored {
            Some((value, revision)) if !converted => {
                let kv = KeyValue {
                    key: Bytes::new(),
                    value,
                    create_revision: 0,
                    mod_revision: revision,
                    version: 1,
                    lease: None,
                };
                object::answer(&kv)
            }
            _ => serde_json::to_vec(&object.0).map_err(Status::internal)?.into(),
        };
        Ok(Written { object, bytes, created })
    }
}

/// The fields that `is` names are as they were.
fn take(new: &mut Object, old: &Object, is: impl Fn(&str) -> bool) {
    new.0.retain(|key, _| !is(key));
    for (key, value) in old.0.iter().filter(|(key, _)| is(key)) {
        new.0.insert(key.clone(), value.clone());
    }
}

/// The status of a custom resource changes nothing of its metadata but who manages it.
fn keep_metadata(new: &mut Object, old: &Object) {
    let managers = new.meta_mut().remove("managedFields");
    let version = new.meta_mut().remove("resourceVersion");
    *new.meta_mut() = old.meta().cloned().unwrap_or_default();
    for (key, value) in [("managedFields", managers), ("resourceVersion", version)] {
        match value {
            Some(value) => new.set_meta(key, value),
            None => drop(new.meta_mut().remove(key)),
        }
    }
}

/// Is everything that generations count as it was?
fn same_spec(new: &Object, old: &Object, status_apart: bool) -> bool {
    let counts =
        |key: &str| !matches!(key, "metadata" | "kind" | "apiVersion") && (!status_apart || key != "status");
    let counted = |object: &'_ Object| object.0.keys().filter(|key| counts(key)).count();
    counted(new) == counted(old)
        && new.0.iter().filter(|(key, _)| counts(key)).all(|(key, value)| old.0.get(key) == Some(value))
}

/// Nodes come with the status that their kubelet found.
fn keeps_first_status(served: &Served) -> bool {
    matches!((&*served.resource.group, &*served.resource.kind), ("", "Node"))
}

/// The same but for the order of keys.
fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    parse(one).is_some_and(|one| Some(one) == parse(other))
}

/// What the store could not do, as it is answered.
pub fn failed(error: &StoreError) -> Status {
    match error {
        StoreError::TooLarge { .. } => {
            Status::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", error.to_string())
        }
        StoreError::NoSpace { .. } => {
            Status::new(StatusCode::INSUFFICIENT_STORAGE, "InternalError", error.to_string())
        }
        StoreError::Unavailable(_) => {
            Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", error.to_string())
        }
        other => Status::internal(other),
    }
}
