//! Leases: keys that go when their owner does not renew them.

use std::fmt;
use std::num::NonZeroI64;
use std::time::Duration;

use crate::client::{Kind, Link};
use crate::kv::name_lease;
use crate::proto::lease_client::LeaseClient;
use crate::proto::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest};
use crate::{Client, EtcdError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(NonZeroI64);

impl LeaseId {
    /// `None` for 0, which is no lease.
    pub fn of(number: i64) -> Option<Self> {
        NonZeroI64::new(number).map(Self)
    }

    pub fn number(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    /// As etcdctl writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub id: LeaseId,
    /// What is left of it, in whole seconds.
    pub ttl: Duration,
    /// Its whole time.
    pub granted: Duration,
}

impl Client {
    /// A new lease; etcd may give a longer time than asked for, never a shorter one.
    pub async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        let message = LeaseGrantRequest { ttl: ttl.as_secs() as i64, id: 0 };
        let answer = self
            .call(Kind::Write, |link| async move {
                client(&link).lease_grant(link.request(message)).await.map(tonic::Response::into_inner)
            })
            .await?;
        let id = LeaseId::of(answer.id).ok_or(EtcdError::Malformed("lease"))?;
        Ok(Lease { id, ttl: seconds(answer.ttl), granted: seconds(answer.ttl) })
    }

    /// Ends a lease: its keys are deleted.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        self.call(Kind::Write, |link| async move {
            client(&link).lease_revoke(link.request(LeaseRevokeRequest { id: lease.number() })).await
        })
        .await
        .map(|_| ())
        .map_err(|error| name_lease(error, Some(lease)))
    }

    /// Starts a lease's time anew, once.
    ///
    /// # Errors
    /// [`EtcdError::NoLease`] when it has run out.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Lease, EtcdError> {
        let message = LeaseKeepAliveRequest { id: lease.number() };
        // Doing this twice is doing it once.
        let answer = self
            .call(Kind::Read, |link| async move {
                let request = link.request(tokio_stream::once(message));
                client(&link).lease_keep_alive(request).await?.into_inner().message().await
            })
            .await?;
        match answer.ok_or(EtcdError::Malformed("lease"))?.ttl {
            ..=0 => Err(EtcdError::NoLease(lease.number())),
            ttl => Ok(Lease { id: lease, ttl: seconds(ttl), granted: seconds(ttl) }),
        }
    }

    /// What is left of a lease.
    ///
    /// # Errors
    /// [`EtcdError::NoLease`] when it has run out.
    pub async fn time_to_live(&self, lease: LeaseId) -> Result<Lease, EtcdError> {
        let message = LeaseTimeToLiveRequest { id: lease.number(), keys: false };
        let answer = self
            .call(Kind::Read, |link| async move {
                client(&link).lease_time_to_live(link.request(message)).await.map(tonic::Response::into_inner)
            })
            .await?;
        match answer.ttl {
            ..=0 => Err(EtcdError::NoLease(lease.number())),
            ttl => Ok(Lease { id: lease, ttl: seconds(ttl), granted: seconds(answer.granted_ttl) }),
        }
    }
}

fn client(link: &Link) -> LeaseClient<tonic::transport::Channel> {
    LeaseClient::new(link.channel.clone())
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.max(0) as u64)
}
