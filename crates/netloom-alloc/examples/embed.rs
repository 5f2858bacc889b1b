//! An address pool in ten lines: a gateway, a range, and an address that comes back.

use netloom_alloc::AddressPool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut pool = AddressPool::builder("10.9.0.0/16".parse()?)
        .gateway("10.9.0.1".parse()?)
        .range("10.9.8.0/24".parse()?)
        .build()?;
    let ip = pool.allocate()?;
    assert_eq!(ip.to_string(), "10.9.8.0");
    pool.release(ip)?;
    assert_eq!(pool.allocated(), 0);
    Ok(())
}
