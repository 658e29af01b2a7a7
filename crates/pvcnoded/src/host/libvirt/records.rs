//! Figures of all domains in one call, by the C interface: the wrapper of `virt` leaks them.

use std::ffi::CStr;

use libc::c_char;
use pvc_core::ids::VmId;
use serde_json::{Value, json};
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

use super::figures::Parameters;

/// One domain's figures.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// The guest.
    pub(super) vm: VmId,
    /// libvirt's number of this run of it.
    pub(super) run: u32,
    /// The figures.
    pub(super) parameters: Parameters,
}

/// The figures of `kinds` (bits of `virDomainStatsTypes`) of every active domain. A domain that is busy with something
/// else is not waited for: it then lacks the figures that only its process knows.
pub(super) fn records(connect: &Connect, kinds: u32) -> Result<Vec<Record>, Error> {
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    let mut list: *mut sys::virDomainStatsRecordPtr = std::ptr::null_mut();
    // SAFETY: the connection is open; libvirt makes the list, which is freed once, below.
    #[expect(unsafe_code, reason = "the wrapper leaks the records")]
    let count = unsafe { sys::virConnectGetAllDomainStats(connect.as_ptr(), kinds, &raw mut list, flags) };
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::last_error());
    };
    let mut records = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: the list holds `count` pointers to records that live until the list is freed.
        #[expect(unsafe_code, reason = "the wrapper leaks the records")]
        let record = unsafe { read(&**list.add(index)) };
        records.extend(record);
    }
    // SAFETY: made by the call above, not used after this.
    #[expect(unsafe_code, reason = "the wrapper leaks the records")]
    unsafe {
        sys::virDomainStatsRecordListFree(list);
    }
    Ok(records)
}

/// Copies a record. `None` if it has no UUID, which does not happen.
///
/// # Safety
/// `record` is one of libvirt's, not yet freed.
#[expect(unsafe_code, reason = "reads C structures")]
unsafe fn read(record: &sys::virDomainStatsRecord) -> Option<Record> {
    let mut uuid = [0_u8; 16];
    // SAFETY: the domain lives as long as the record; the buffer has VIR_UUID_BUFLEN (16) bytes.
    let (outcome, run) = unsafe {
        (
            sys::virDomainGetUUID(record.dom, uuid.as_mut_ptr()),
            sys::virDomainGetID(record.dom),
        )
    };
    if outcome < 0 {
        return None;
    }
    let count = usize::try_from(record.nparams).unwrap_or(0);
    let mut parameters = Parameters::new();
    for index in 0..count {
        // SAFETY: the record holds `nparams` parameters.
        let parameter = unsafe { &*record.params.add(index) };
        // SAFETY: the name is terminated within its 80 bytes, the value is of the type that it says.
        if let Some((name, value)) = unsafe { parameter_of(parameter) } {
            parameters.insert(name, value);
        }
    }
    Some(Record {
        vm: VmId::new(Uuid::from_bytes(uuid)),
        run,
        parameters,
    })
}

/// # Safety
/// `parameter` was filled in by libvirt.
#[expect(unsafe_code, reason = "reads a C union by its tag")]
unsafe fn parameter_of(parameter: &sys::virTypedParameter) -> Option<(String, Value)> {
    // SAFETY: see above.
    let name = unsafe { text(parameter.field.as_ptr()) };
    let value = &parameter.value;
    // SAFETY: each arm reads the member that the tag names.
    let value = unsafe {
        match u32::try_from(parameter.type_).ok()? {
            sys::VIR_TYPED_PARAM_INT => json!(value.i),
            sys::VIR_TYPED_PARAM_UINT => json!(value.ui),
            sys::VIR_TYPED_PARAM_LLONG => json!(value.l),
            sys::VIR_TYPED_PARAM_ULLONG => json!(value.ul),
            sys::VIR_TYPED_PARAM_DOUBLE => json!(value.d),
            sys::VIR_TYPED_PARAM_BOOLEAN => json!(value.b != 0),
            sys::VIR_TYPED_PARAM_STRING if !value.s.is_null() => json!(text(value.s)),
            _ => return None,
        }
    };
    Some((name, value))
}

/// # Safety
/// `text` points to a terminated text.
#[expect(unsafe_code, reason = "reads a C text")]
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
